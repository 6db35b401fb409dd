// A certified OpenID provider for tests, with a control surface under /control. One argument, JSON:
// {port, clientId, clientSecret, redirectUris, scopes, accessTtl, refreshTtl, backchannelLogoutUri}; times in seconds.
// Whoever `login_hint` names is signed in and consents without a person. A refresh token that is presented a second
// time revokes its whole grant.
import { Provider } from 'oidc-provider';
import { setStorage } from 'oidc-provider/lib/adapters/memory_adapter.js';

// The provider's own storage forgets what goes beyond a thousand entries, and a forgotten grant looks like a lost one.
class Storage {
  #entries = new Map();

  get(key) {
    const entry = this.#entries.get(key);
    return entry !== undefined && entry.until > Date.now() ? entry.value : undefined;
  }

  set(key, value, { maxAge = Infinity } = {}) { this.#entries.set(key, { value, until: Date.now() + maxAge }); }

  delete(key) { return this.#entries.delete(key); }

  purge() { for (const [key, { until }] of this.#entries) if (until <= Date.now()) this.#entries.delete(key); }
}

const storage = new Storage();
setStorage(storage);
setInterval(() => storage.purge(), 30_000).unref();

const options = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${options.port}`;
const redirectUris = new Set(options.redirectUris);
const accounts = new Map();
const signIns = new Map();
const stats = { tokenCalls: 0, refreshes: {}, lastRotation: {}, errors: {}, reuses: {}, grantsRevoked: 0 };

const accountOf = (sub) => {
  if (!accounts.has(sub)) {
    const subscription = sub === 'alice' || sub.startsWith('pro') ? 'pro' : 'free';
    accounts.set(sub, { claims: { name: sub, subscription_level: subscription, permissions: ['events'] } });
  }
  return accounts.get(sub);
};

const allowedScope = (sub, asked) => {
  const { scope } = accountOf(sub);
  if (scope === undefined) return asked;
  const allowed = new Set(scope.split(' '));
  return asked.split(' ').filter((one) => allowed.has(one)).join(' ');
};

const provider = new Provider(issuer, {
  clients: [{
    client_id: options.clientId,
    client_secret: options.clientSecret,
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    redirect_uris: [...redirectUris],
    ...(options.backchannelLogoutUri && {
      backchannel_logout_uri: options.backchannelLogoutUri,
      backchannel_logout_session_required: true,
    }),
  }],
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'none'],
  cookies: { keys: ['only for tests'] },
  scopes: options.scopes,
  claims: { openid: ['sub'], profile: ['name', 'subscription_level', 'permissions', 'roles'], email: ['email', 'email_verified'] },
  features: {
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
    registration: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
  ttl: {
    AccessToken: (ctx, token) => accountOf(token.accountId).access_ttl ?? options.accessTtl,
    RefreshToken: options.refreshTtl,
    AuthorizationCode: 60,
    IdToken: 3600,
    Interaction: 600,
    Session: 86400,
    Grant: 86400,
  },
  rotateRefreshToken: true,
  issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
  pkce: { required: () => true },
  findAccount: async (ctx, sub) => ({ accountId: sub, claims: async () => ({ ...accountOf(sub).claims, sub }) }),
  // The default dispatcher refuses special-use addresses, and the application under test is on loopback.
  fetch: (url, { dispatcher, ...rest }) => fetch(url, new URL(url).hostname === '127.0.0.1' ? rest : { ...rest, dispatcher }),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
});

// The application under test listens on a port that is not known when the provider starts.
const registered = provider.Client.prototype.redirectUriAllowed;
provider.Client.prototype.redirectUriAllowed = function redirectUriAllowed(uri) {
  return (this.clientId === options.clientId && redirectUris.has(uri)) || registered.call(this, uri);
};

const count = (table, key) => { table[key] = (table[key] ?? 0) + 1; };
provider.on('grant.success', (ctx) => {
  const sub = ctx.oidc.account?.accountId;
  if (ctx.oidc.params.grant_type === 'refresh_token') {
    count(stats.refreshes, sub);
    stats.lastRotation[sub] = Date.now() / 1000;
  }
  const code = ctx.oidc.entities.AuthorizationCode;
  if (code) signIns.set(code.grantId, { sub, sid: code.sid });
});
provider.on('grant.error', (ctx, error) => {
  if (error.error === 'unsupported_grant_type') return; // the health check, which sees by it that the endpoint works
  count(stats.errors, error.error);
  if (error.error_detail === 'refresh token already used') count(stats.reuses, ctx.oidc.account?.accountId);
});
provider.on('grant.revoked', () => { stats.grantsRevoked += 1; });

const grantsOf = (sub) => [...signIns].filter(([, signIn]) => signIn.sub === sub);

const control = {
  'GET /control/stats': async () => stats,

  'POST /control/redirect-uri': async (query) => {
    redirectUris.add(query.get('uri'));
    return { redirectUris: [...redirectUris] };
  },

  // {claims, scope, access_ttl}: what is given replaces what was; a narrower scope holds from the next refresh on.
  'POST /control/account': async (query, change) => {
    const sub = query.get('sub');
    const account = Object.assign(accountOf(sub), change);
    for (const [id] of grantsOf(sub)) {
      const grant = await provider.Grant.find(id);
      if (grant && account.scope !== undefined) {
        grant.openid = { scope: account.scope };
        await grant.save();
      }
    }
    return account;
  },

  'POST /control/revoke-account': async (query) => {
    const ids = grantsOf(query.get('sub')).map(([id]) => id);
    for (const id of ids) {
      await (await provider.Grant.find(id))?.destroy();
      for (const model of ['AccessToken', 'RefreshToken', 'AuthorizationCode']) await provider[model].revokeByGrantId(id);
      signIns.delete(id);
    }
    return { revoked: ids.length };
  },

  'POST /control/backchannel-logout': async (query) => {
    const sub = query.get('sub');
    const client = await provider.Client.find(options.clientId);
    const sessions = new Set(grantsOf(sub).map(([, signIn]) => signIn.sid));
    for (const sid of sessions) await client.backchannelLogout(sub, sid);
    return { notified: sessions.size };
  },
};

provider.use(async (ctx, next) => {
  if (ctx.path === '/token') stats.tokenCalls += 1;
  const action = control[`${ctx.method} ${ctx.path}`];
  if (action) {
    let body = '';
    for await (const chunk of ctx.req) body += chunk;
    ctx.body = await action(new URLSearchParams(ctx.querystring), body ? JSON.parse(body) : {});
    return;
  }
  if (!ctx.path.startsWith('/interaction/')) {
    await next();
    return;
  }
  const { params, session, grantId } = await provider.interactionDetails(ctx.req, ctx.res);
  const accountId = params.login_hint ?? session?.accountId ?? 'alice';
  const earlier = grantId && session?.accountId === accountId ? await provider.Grant.find(grantId) : undefined;
  const grant = earlier ?? new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(allowedScope(accountId, params.scope));
  grant.rejectOIDCScope(params.scope.split(' ').filter((one) => !grant.getOIDCScope().split(' ').includes(one)).join(' '));
  const result = { login: { accountId }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: true });
});

const server = provider.listen(options.port, '127.0.0.1', () => console.log(`ready ${issuer}`));
process.on('SIGTERM', () => { server.close(() => process.exit(0)); server.closeAllConnections(); });
