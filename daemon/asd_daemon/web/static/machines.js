// A machine's backup is sent as it is, and the page that follows says what came of it.
"use strict";

for (const form of document.querySelectorAll("form.restore")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button"), words = button.textContent;
    const machine = form.dataset.machine ?? form.elements.machine.value.trim(), file = form.querySelector("input[type=file]").files[0];
    button.disabled = true;
    button.textContent = "Sending …";
    try {
      await fetch(`/machines/${encodeURIComponent(machine)}/restore`, {
        method: "POST",
        headers: { "X-Form-Token": form.dataset.token, "Content-Type": "application/zip" },
        body: file,
      });
      location.assign("/machines");
    } catch {
      button.disabled = false;
      button.textContent = words;
    }
  });
}
