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
  const specOf = (place) => structuredClone(embedded.charts[place.dataset.chart][Number(place.dataset.index)]);
  const draw = (place) => {
    const spec = specOf(place);
    const width = place.clientWidth;
    spec.config.legend.columns = Math.max(1, Math.floor(width / spec.usermeta.legendEntry));
    if (width < 560) {  // names would lie on one another; they are in the tooltips and the table
      spec.config.axisY.labelLimit = 150;
      spec.layer = spec.layer.filter((layer) => !(layer.name ?? "").startsWith("names-"));
    }
    vegaEmbed(place, spec, options).catch((problem) => {
      place.textContent = "The chart could not be drawn; its numbers are in the table below.";
      console.error(problem);
    });
  };
  // Pictures of charts, for other pages: the light theme's colours on white, with the title in them.
  const inLight = (spec) => JSON.parse(JSON.stringify(spec).replace(
    /var\((--[\w-]+)\)/g, (whole, name) => embedded.colors[name] ?? whole));
  const pictureOf = async (place, form) => {
    const spec = { ...inLight(specOf(place)), title: place.dataset.title, background: "#ffffff", width: 640 };
    const { view } = await vegaEmbed(document.createElement("div"), spec, options);
    try {
      if (form === "svg") return new Blob([await view.toSVG()], { type: "image/svg+xml" });
      const canvas = await view.toCanvas(2);
      return await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    } finally {
      view.finalize();
    }
  };
  const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  const savePicture = async (button) => {
    const place = button.parentElement.previousElementSibling;
    const form = button.dataset.picture;
    save(await pictureOf(place, form), `${place.dataset.file}.${form}`);
  };

  // The chart library, which the policy knows by its hash as it knows this script.
  const library = document.getElementById("library");
  if (library) {
    unpack(library.textContent).then((text) => {
      const script = document.createElement("script");
      script.textContent = text;
      document.head.append(script);
      document.querySelectorAll(".plot").forEach(draw);
      document.querySelectorAll("[data-picture]").forEach((button) =>
        button.addEventListener("click", () => savePicture(button)));
    });
  }

  // Sorting. Rows of nulls stay below the others; what has no value comes last in both directions.
  const isMissing = (row, index) => row.cells[index].classList.contains("missing");
  // A cell's first node is its value; unit, interval and badges come behind it. Without a value, the reason does.
  const keyOf = (row, index) => {
    const cell = row.cells[index];
    const value = isMissing(row, index) ? cell : cell.firstChild;
    return cell.dataset.sort ?? (value?.textContent ?? "").trim();
  };
  const compare = (one, other) => {
    const [a, b] = [Number(one), Number(other)];
    if (!Number.isNaN(a) && !Number.isNaN(b)) return a - b;
    return one.localeCompare(other, undefined, { numeric: true });
  };
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

  // Filtering and hiding. A row is shown where every word occurs in it and nothing hides it.
  const named = (name) => document.getElementById(`table-${name}`);
  const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const ofTable = new Map();
  const hiddenOf = (name) => {
    if (!ofTable.has(name)) ofTable.set(name, { words: [], nulls: false, columns: new Set(), rows: new Set() });
    return ofTable.get(name);
  };
  const nameOf = (row) => (row.cells[0].querySelector(".main, code") ?? row.cells[0]).textContent.trim() || "—";
  const refresh = (name) => {
    const { words, nulls, columns, rows: names } = hiddenOf(name);
    const table = named(name);
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) {
      const text = words.length ? row.textContent.toLowerCase() : "";
      row.hidden = !words.every((word) => text.includes(word)) || names.has(nameOf(row)) ||
        (nulls && row.classList.contains("is-null"));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    const found = [];
    if (words.length || shown < rows.length) found.push(`${shown} of ${counted(rows.length, "row")}`);
    if (columns.size) found.push(`${counted(columns.size, "column")} hidden`);
    document.querySelector(`[data-found="${name}"]`).textContent = found.join(", ");
  };
  const showColumn = (name, index, isShown) => {
    hiddenOf(name).columns[isShown ? "delete" : "add"](index);
    for (const row of named(name).rows) row.cells[index].hidden = !isShown;
  };
  document.querySelectorAll("input[data-filters]").forEach((input) =>
    input.addEventListener("input", () => {
      hiddenOf(input.dataset.filters).words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      refresh(input.dataset.filters);
    }));

  // What can be hidden: columns but the first, which names the rows; nulls; and rows by their name, if few.
  const MOST_NAMES = 40;
  const choice = (text, change) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    Object.assign(box, { type: "checkbox", checked: true, autocomplete: "off" });
    box.addEventListener("change", () => change(box.checked));
    label.append(box, ` ${text}`);
    return label;
  };
  const group = (title, choices) => {
    const set = document.createElement("fieldset");
    const legend = document.createElement("legend");
    legend.textContent = title;
    set.append(legend, ...choices);
    return set;
  };
  const titleOf = (header) => header.querySelector(".sort").firstChild.textContent.trim();
  const offer = (place) => {
    const name = place.dataset.hides;
    const hidden = hiddenOf(name);
    const [headers, rows] = [[...named(name).tHead.rows[0].cells], [...named(name).tBodies[0].rows]];
    const groups = [group("Columns", headers.slice(1).map((header, index) =>
      choice(titleOf(header), (isShown) => { showColumn(name, index + 1, isShown); refresh(name); })))];
    const names = [...new Set(rows.map(nameOf))];
    const isNull = (row) => row.classList.contains("is-null");
    const some = rows.some(isNull) && !rows.every(isNull)
      ? [choice("All nulls", (isShown) => { hidden.nulls = !isShown; refresh(name); })] : [];
    if (names.length > 1 && names.length <= MOST_NAMES) {
      some.push(...names.map((text) => choice(text, (isShown) => {
        hidden.rows[isShown ? "delete" : "add"](text);
        refresh(name);
      })));
    }
    if (some.length) {
      groups.push(group(names.length < rows.length ? `Rows by ${titleOf(headers[0])}` : "Rows", some));
      place.querySelector(".hiding-what").textContent = "Columns, rows";
    }
    const all = document.createElement("button");
    Object.assign(all, { type: "button", textContent: "Show all" });
    all.addEventListener("click", () => {
      place.querySelectorAll("input").forEach((box) => { box.checked = true; });
      headers.forEach((_, index) => showColumn(name, index, true));
      Object.assign(hidden, { words: [], nulls: false, rows: new Set() });
      document.querySelectorAll("input[data-filters]").forEach((input) => {
        if (input.dataset.filters === name) input.value = "";
      });
      refresh(name);
    });
    place.querySelector(".hiding-choices").append(...groups, all);
  };
  document.querySelectorAll("details.hiding").forEach((place) => {
    offer(place);
    place.hidden = false;
  });

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
  const download = document.getElementById("download");
  download.addEventListener("click", async () => {
    save(new Blob([await unpack(embedded.report)], { type: "application/json" }), download.textContent);
  });
})();
