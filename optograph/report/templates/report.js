// Behaviour of the report: theme, saved data, node details, example filters. Texts are only ever set by textContent.
"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
  const one = (selector) => document.querySelector(selector);
  const reveal = (selector) => all(selector).forEach((element) => { element.hidden = false; });
  reveal(".tools, .actions, .controls");

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
  window.addEventListener("beforeprint", () => fold(true));

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
    const more = one(".pager");
    let limit = page;
    const show = () => {
      const status = buttons.find((button) => button.getAttribute("aria-pressed") === "true").dataset.filter;
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let found = 0;
      for (const { row, text } of lines) {
        const fits = (!status || row.dataset.status === status) && words.every((word) => text.includes(word));
        found += fits ? 1 : 0;
        row.hidden = !fits || found > limit;
      }
      more.hidden = found <= limit;
      one("#shown").textContent = found ? `Showing ${Math.min(found, limit)} of ${found}` : "No example fits.";
    };
    buttons.forEach((button) => button.addEventListener("click", () => {
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      limit = page;
      show();
    }));
    search.addEventListener("input", () => { limit = page; show(); });
    one("#show-more").addEventListener("click", () => { limit += 5 * page; show(); });
    window.addEventListener("beforeprint", () => { limit = Infinity; show(); });
    show();
  }
})();
