// Asks for the API key, once.

import { call } from "/web/api.js";
import { fill, h } from "/web/dom.js";

export function loginView(main, route, app) {
  const message = h("p.form-error", { role: "alert" }, route.query.has("expired") ? "That link was used before, or is too old. Log in with the API key." : "");
  const input = h("input", { id: "key", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
  const button = h("button.primary", { type: "submit" }, "Open the fleet");
  const form = h("form.card.login", {
    onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      message.textContent = "";
      try {
        await call("/api/v1/session", { method: "POST", body: { key: input.value.trim() }, quiet: true });
        app.loggedIn();
      } catch (error) {
        message.textContent = error.status === 401 ? "This key is not valid. Copy it as it is." : error.message;
        input.select();
      } finally {
        button.disabled = false;
      }
    },
  },
  h("h1", {}, "API key"),
  h("p", {}, "This page needs an API key, once. It is kept in a cookie that scripts cannot read."),
  h("input", { type: "text", name: "username", autocomplete: "username", value: "telemetry", hidden: true }),
  h("label.field", { for: "key" }, h("span", {}, "Key"), input),
  message,
  button,
  h("p.note", {}, "Where is it? ", h("code", {}, "telemetry up"), " prints it, and a link that logs you in. Without API_KEY it is in the file ", h("code", {}, "api-key"), " of the data folder."));
  fill(main, form);
  input.focus();
  return () => {};
}
