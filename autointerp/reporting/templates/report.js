"use strict";
// What was deflated and put in base64 to keep the page small.
const unpack = (text) => {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
};
(() => {
  const embedded = JSON.parse(document.getElementById("data").textContent);

  // Charts. `ast` has Vega interpret its expressions, since the page's policy forbids compiling text to code.
  // Its own style elements would not pass the policy either: what they hold stands in the page's.
  const options = {
    renderer: "svg", ast: true, actions: false, defaultStyle: false,
    tooltip: { theme: "custom", disableDefaultStyle: true },
  };
  const draw = (place) => {
    const spec = embedded.charts[place.dataset.chart][Number(place.dataset.index)];
    const width = place.clientWidth;
    spec.config.legend.columns = Math.max(1, Math.floor(width / 190));
    if (width < 560) {  // names would lie on one another; they are in the tooltips and the table
      spec.layer = spec.layer.filter((layer) => !(layer.name ?? "").startsWith("names-"));
    }
    vegaEmbed(place, spec, options).catch((problem) => {
      place.textContent = "The chart could not be drawn; its numbers are in the table below.";
      console.error(problem);
    });
  };
  // The chart library, which the policy knows by its hash as it knows this script.
  const library = document.getElementById("library");
  if (library) {
    unpack(library.textContent).then((text) => {
      const script = document.createElement("script");
      script.textContent = text;
      document.head.append(script);
      document.querySelectorAll(".plot").forEach(draw);
    });
  }

  // Sorting. Rows of nulls stay below the others; what has no value comes last in both directions.
  const keyOf = (row, index) => row.cells[index].dataset.sort ?? row.cells[index].textContent.trim();
  const compare = (one, other) => {
    const [a, b] = [Number(one), Number(other)];
    if (!Number.isNaN(a) && !Number.isNaN(b)) return a - b;
    return one.localeCompare(other, undefined, { numeric: true });
  };
  const isMissing = (row, index) => row.cells[index].classList.contains("missing");
  const sortBy = (header) => {
    const table = header.closest("table");
    const index = header.cellIndex;
    const descends = header.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", descends ? "descending" : "ascending");
    const ordered = [...table.tBodies[0].rows].sort((one, other) =>
      one.classList.contains("is-null") - other.classList.contains("is-null") ||
      isMissing(one, index) - isMissing(other, index) ||
      (descends ? -1 : 1) * compare(keyOf(one, index), keyOf(other, index)));
    table.tBodies[0].append(...ordered);
  };
  document.querySelectorAll("thead .sort").forEach((button) =>
    button.addEventListener("click", () => sortBy(button.closest("th"))));

  // Filtering: every word must occur somewhere in the row.
  const filter = (input) => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...document.getElementById(`table-${input.dataset.filters}`).tBodies[0].rows];
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    const note = document.querySelector(`[data-found="${input.dataset.filters}"]`);
    note.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  };
  document.querySelectorAll("input[data-filters]").forEach((input) =>
    input.addEventListener("input", () => filter(input)));

  // Where the reader is.
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  document.querySelectorAll("main section").forEach((section) => watcher.observe(section));

  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const isDark = root.dataset.theme
      ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
  });
  document.getElementById("download").addEventListener("click", async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([await unpack(embedded.report)], { type: "application/json" }));
    link.download = "report.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });
})();
