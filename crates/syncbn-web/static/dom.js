// Common code of the parts of the page: elements, tables, lines of status.

export const find = (id) => document.getElementById(id);
export const fixed = (value, digits = 1) => value.toFixed(digits);

const cell = (text) => Object.assign(document.createElement("td"), { textContent: text });

/** Fills the body of a table with rows of texts. */
export function fill(table, rows) {
  const body = find(table).tBodies[0];
  body.replaceChildren(...rows.map((texts) => {
    const row = document.createElement("tr");
    row.append(...texts.map(cell));
    return row;
  }));
}

/** What is under way in one section: its elements `NAME-status` and `NAME-progress`. */
export function line(name) {
  const [status, bar] = [find(`${name}-status`), find(`${name}-progress`)];
  const say = (text) => {
    // A text that stays is not said again.
    if (status.textContent !== text) status.textContent = text;
  };
  return {
    /** Work that has come as far as `part`, of 1; without one nobody knows. */
    working(text, part) {
      say(text);
      if (part === undefined) bar.removeAttribute("value");
      else bar.value = part;
      bar.hidden = false;
    },
    done(text) {
      say(text);
      bar.hidden = true;
    },
    failed(error) {
      say(`Failed: ${error.message ?? error}`);
      bar.hidden = true;
      console.error(error);
    },
  };
}
