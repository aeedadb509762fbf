// A machine's backup is sent as it is, and the page that follows says what came of it.
"use strict";

for (const form of document.querySelectorAll("form.restore")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button"), words = button.textContent;
    const machine = form.dataset.machine ?? form.elements.machine.value.trim(), file = form.querySelector("input[type=file]").files[0];
    button.disabled = true;
    button.textContent = "Sending …";
    const trouble = form.querySelector(".trouble");
    trouble.textContent = "";
    try {
      const answer = await fetch(`/machines/${encodeURIComponent(machine)}/restore${form.dataset.machine ? "" : "?new=1"}`, {
        method: "POST",
        headers: { "X-Form-Token": form.dataset.token, "Content-Type": "application/zip", Accept: "text/plain" },
        body: file,
      });
      if (answer.ok) return location.assign("/machines");
      trouble.textContent = await answer.text();
    } catch {
      trouble.textContent = "The file could not be sent: it is too large, or the page does not answer.";
    }
    button.disabled = false;
    button.textContent = words;
  });
}
