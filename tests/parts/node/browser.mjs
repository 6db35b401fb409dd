// Runs one script in Chromium. One argument, JSON: {executable, profile, script, params, timeoutMs}. `script` is the
// body of an async function of (page, context, params); what it returns is written, as JSON, to the last line.
import { chromium } from 'playwright-core';

const { executable, profile, script, params, timeoutMs } = JSON.parse(process.argv[2]);
const context = await chromium.launchPersistentContext(profile, {
  executablePath: executable,
  headless: true,
  args: [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
});
let status = 0;
try {
  context.setDefaultTimeout(timeoutMs);
  const page = context.pages()[0] ?? await context.newPage();
  page.on('console', (message) => console.log(`[${message.type()}] ${message.text()}`));
  page.on('pageerror', (error) => console.log(`[page error] ${error}`));
  const AsyncFunction = (async () => {}).constructor;
  const result = await new AsyncFunction('page', 'context', 'params', script)(page, context, params);
  console.log(`result ${JSON.stringify(result ?? {})}`);
} catch (error) {
  console.log(error.stack);
  status = 1;
} finally {
  await context.close();
}
process.exit(status);
