// Buttons that copy what stands in another element of the page.

for (const button of document.querySelectorAll('[data-copies]')) {
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
      button.textContent = 'Copied';
    } catch {
      button.textContent = 'Select it and copy by hand';
    }
  });
}
