// Behaviour of the report: theme, saved data, node details, example filters. Texts are only ever set by textContent.
"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
  const one = (selector) => document.querySelector(selector);
  const reveal = (selector) => all(selector).forEach((element) => { element.hidden = false; });
  reveal(".tools, .tool, .actions, .controls");

  // Light and dark.
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  one("#theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });

  // The figures of this report as a file.
  one("#save-data").addEventListener("click", () => {
    const text = one("#report-data").textContent;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "report.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  // A link to a folded candidate opens it.
  const openTarget = () => {
    const id = location.hash.slice(1);
    const target = /^[a-z][a-z0-9-]*$/.test(id) ? document.getElementById(id) : null;
    if (target instanceof HTMLDetailsElement) {
      const outer = target.parentElement.closest("details");
      if (outer) outer.open = true;
      target.open = true;
      target.scrollIntoView({ block: "start" });
      target.querySelector("summary").focus({ preventScroll: true });
    }
  };
  window.addEventListener("hashchange", openTarget);
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    if (link && link.getAttribute("href") === location.hash) openTarget();
  });
  openTarget();
  const rows = all(".candidate-row");
  const fold = (open) => rows.forEach((row) => { row.open = open; });
  one("#open-all")?.addEventListener("click", () => fold(true));
  one("#close-all")?.addEventListener("click", () => fold(false));

  // Paper is light, and holds what is folded.
  let screen;
  window.addEventListener("beforeprint", () => {
    screen = root.dataset.theme;
    root.dataset.theme = "light";
    fold(true);
  });
  window.addEventListener("afterprint", () => {
    if (screen) root.dataset.theme = screen;
    else delete root.dataset.theme;
  });

  // Texts side by side: the marked text twice, once without what was added and once without what was removed.
  const sides = one("#sides");
  const split = (text) => {
    const pair = document.createElement("div");
    pair.className = "sides";
    for (const [name, gone] of [["Before", "ins"], ["After", "del"]]) {
      const column = document.createElement("section");
      const title = document.createElement("h4");
      title.textContent = name;
      const copy = text.cloneNode(true);
      copy.hidden = false;
      all(gone, copy).forEach((piece) => piece.remove());
      column.setAttribute("aria-label", name);
      column.append(title, copy);
      pair.append(column);
    }
    return pair;
  };
  const texts = all("#changes > .changes .diff");
  if (sides && !texts.length) sides.parentElement.hidden = true;
  sides?.addEventListener("click", () => {
    const on = sides.getAttribute("aria-pressed") !== "true";
    sides.setAttribute("aria-pressed", String(on));
    texts.forEach((text) => {
      if (on) text.after(split(text));
      else text.nextElementSibling.remove();
      text.hidden = on;
    });
  });

  // Read a point of the score chart.
  const readout = one("#readout");
  all("[data-readout]").forEach((point) => {
    const read = () => { readout.textContent = point.dataset.readout; };
    point.addEventListener("pointerenter", read);
    point.addEventListener("focus", read);
  });

  // Choose a node of the trace.
  const nodes = all("[data-node]");
  const details = all(".node-detail");
  const choose = (node) => {
    nodes.forEach((other) => other.setAttribute("aria-pressed", String(other === node)));
    details.forEach((detail) => { detail.hidden = detail.id !== node.dataset.node; });
  };
  nodes.forEach((node, index) => {
    node.addEventListener("click", () => choose(node));
    node.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
      if (event.key === "Enter" || event.key === " ") choose(node);
      else if (step && nodes[index + step]) nodes[index + step].focus();
      else return;
      event.preventDefault();
    });
  });
  if (nodes.length) {
    choose(nodes.find((node) => node.matches(".parameter.on-path")) || nodes[0]);
    one(".nodes").classList.add("one-at-a-time");
  }

  // Filter, search and page the examples.
  const table = one("#example-table");
  if (table) {
    const page = 20;
    const lines = all("tbody tr", table).map((row) => ({ row, text: row.textContent.toLowerCase() }));
    const buttons = all("[data-filter]");
    const search = one("#search");
    const failure = one("#failure");
    const more = one(".pager");
    const none = one("#none");
    let limit = page;
    const press = (button) => buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    const show = () => {
      const status = buttons.find((button) => button.getAttribute("aria-pressed") === "true").dataset.filter;
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const kind = failure ? failure.value : "";
      let found = 0;
      for (const { row, text } of lines) {
        const fits = (!status || row.dataset.status === status) && (!kind || row.dataset.failure === kind)
          && words.every((word) => text.includes(word));
        found += fits ? 1 : 0;
        const hide = !fits || found > limit;
        if (row.hidden !== hide) row.hidden = hide;
      }
      more.hidden = found <= limit;
      none.hidden = found > 0;
      one("#shown").textContent = `Showing ${Math.min(found, limit)} of ${found}`;
    };
    const again = () => { limit = page; show(); };
    buttons.forEach((button) => button.addEventListener("click", () => { press(button); again(); }));
    search.addEventListener("input", again);
    failure?.addEventListener("change", again);
    one("#reset").addEventListener("click", () => {
      press(buttons[0]);
      search.value = "";
      if (failure) failure.value = "";
      again();
      search.focus();
    });
    one("#show-more").addEventListener("click", () => {
      const next = lines.filter(({ row }) => !row.hidden).length;
      limit += 5 * page;
      show();
      const first = lines.filter(({ row }) => !row.hidden)[next];
      if (first) {
        first.row.tabIndex = -1;
        first.row.focus();
      }
    });
    document.addEventListener("keydown", (event) => {
      const typing = event.target instanceof Element && event.target.closest("input, select, textarea");
      if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault();
        search.focus();
        search.select();
      } else if (event.key === "Escape" && event.target === search && search.value) {
        search.value = "";
        again();
      }
    });
    window.addEventListener("beforeprint", () => { limit = Infinity; show(); });
    show();
  }
})();
