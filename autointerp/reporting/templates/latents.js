(async () => {
  const { make, score, count, frequency, token, quoted, bar, bars } = latentElements;
  const get = (id) => document.getElementById(id);
  if (!get("latents-app")) return;
  const PAGE = 20;
  const found = get("latent-found");
  if (typeof DecompressionStream === "undefined") {
    found.textContent = "This browser is too old to show latents; `autointerp show` prints the same.";
    return;
  }
  const index = JSON.parse(await unpack(get("latents-index").textContent));
  const { rows, metrics } = index;
  const shownMetrics = metrics.slice(0, 3).filter(({ key }) => /detection_auroc|fuzzing_auroc|simulation_correlation/.test(key));
  const key = (checkpoint, latent) => `${checkpoint}/${latent}`;
  const byKey = new Map();
  const placed = new Map();
  rows.forEach((row, order) => {
    row.order = order;
    row.place = placed.get(row.p) ?? 0;
    placed.set(row.p, row.place + 1);
    byKey.set(key(row.c, row.i), row);
    const words = [...(row.k ?? []), ...(row.o ?? [])].map((number) => index.texts[number]);
    row.text = [row.t ?? "", ...words, ...words.map(quoted)].join("\n").toLowerCase();
  });
  index.find = (checkpoint, latent) => byKey.get(key(checkpoint, latent));

  // The data of opened latents: in the page, or in a style sheet beside it.
  const property = (name) => getComputedStyle(get("latent-store")).getPropertyValue(name).trim().replaceAll('"', "");
  const beside = ([address, name]) => new Promise((resolve, reject) => {
    const link = make("link", { rel: "stylesheet" });
    link.nonce = document.querySelector("style").nonce;
    const fail = (why) => { link.remove(); reject(new Error(why)); };
    link.addEventListener("load", () => {
      const text = property(name);
      if (!text) { fail(`${decodeURIComponent(address)} belongs to another report.`); return; }
      link.remove();
      resolve(text);
    });
    link.addEventListener("error", () => fail(`${decodeURIComponent(address)} is not beside this page.`));
    link.href = address;
    document.head.append(link);
  });
  const pages = new Map();
  const load = (number) => {
    if (!pages.has(number)) {
      const text = index.files.length ? beside(index.files[number]) : Promise.resolve(get("latents-embedded").textContent);
      pages.set(number, text.then(unpack).then(JSON.parse));
      pages.get(number).catch(() => pages.delete(number));
    }
    return pages.get(number);
  };

  // Sorting.
  const lift = (row, at) => { const value = row.v?.[at]; return value && value[3] !== null ? value[0] - value[3] : undefined; };
  const orders = [
    { name: "As drawn, explained first", value: (row) => row.order + (row.v || row.t ? 0 : rows.length), rises: true },
    { name: "Number", value: (row) => row.i, rises: true },
    { name: "Density", value: (row) => row.d },
    { name: "Largest activation", value: (row) => row.m },
    ...metrics.map((metric, at) => ({ name: metric.title, value: (row) => row.v?.[at]?.[0], rises: metric.better === "lower" })),
    ...shownMetrics.map((metric, at) => ({ name: `${metric.title}, over the borrowed`, value: (row) => lift(row, at) })),
    { name: "Disagreement between scorers", value: (row) => row.x },
  ].filter(({ value }) => rows.some((row) => value(row) !== undefined && value(row) !== null));
  orders.forEach(({ name }, place) => get("latent-sort").append(make("option", { value: place }, name)));
  const sizes = index.checkpoints.map((_, place) => rows.filter((row) => row.c === place).length);
  get("latent-checkpoint").append(make("option", { value: "" }, `All ${index.checkpoints.length}`),
    ...index.checkpoints.map(({ name, null: isNull }, place) =>
      make("option", { value: place }, `${name}${isNull ? " (null)" : ""}, ${count(sizes[place])}`)));

  let rises = true;
  let shown = rows;
  let page = 0;
  const select = () => {
    const words = get("latent-search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const only = get("latent-checkpoint").value;
    const order = orders[Number(get("latent-sort").value)];
    const isNamed = (row) => words.length === 1 && String(row.i) === words[0];
    const fits = (row) => (only === "" || row.c === Number(only)) &&
      words.every((word) => row.text.includes(word) || String(row.i) === word);
    const missing = (row) => (order.value(row) ?? null) === null;
    shown = rows.filter(fits).sort((one, other) =>
      isNamed(other) - isNamed(one) || missing(one) - missing(other) ||
      (missing(one) ? 0 : (rises ? 1 : -1) * (order.value(one) - order.value(other))) || one.order - other.order);
    get("latent-direction").textContent = rises ? "↑ lowest first" : "↓ highest first";
    page = 0;
    render();
  };

  const rowElement = (row) => {
    const checkpoint = index.checkpoints[row.c];
    const tags = [checkpoint.null ? "null" : "", row.s ?? "", row.u ? "ultra-dense" : ""].filter(Boolean);
    const peaks = (row.k ?? []).map((number) => token(index.texts[number]));
    const scores = !row.v ? [] : shownMetrics.map(({ title, chance }, at) => {
      const value = row.v?.[at];
      return make("span", { class: "score" }, make("span", { class: "name" }, title.split(",")[0]),
        value ? make("span", { class: "main", title: `${score(value[0])} [${score(value[1])}, ${score(value[2])}]${value[3] === null ? "" : `; with another latent's explanation ${score(value[3])}`}` }, score(value[0]))
          : make("span", { class: "missing" }, "–"), value ? bar(value, value[3], chance) : null);
    });
    const button = make("button", { type: "button", class: `latent-row${checkpoint.null ? " is-null" : ""}`, tabindex: "-1" },
      make("span", { class: "who" }, make("span", { class: "number" }, `latent ${row.i}`), make("bdi", { class: "where" }, checkpoint.name),
        tags.map((tag) => make("span", { class: `badge${tag === "null" ? " null" : ""}` }, tag))),
      make("span", { class: "what" },
        row.t ? make("bdi", { class: "said" }, row.t) : index.withText ? make("span", { class: "missing" }, row.s === "undefined" ? "fires in too few documents to be explained" : "not explained") : null,
        peaks.length ? make("span", { class: "peaks" }, make("span", { class: "hidden" }, " peaks at "), peaks) : null),
      make("span", { class: "scores" }, scores),
      make("span", { class: "often" }, row.h ? bars([...row.h].map((digit) => digit / 9), 72, 22) : null, make("span", {}, frequency(row.d))));
    button.addEventListener("click", () => open(row));
    return make("li", {}, button);
  };
  const list = get("latent-list");
  const last = () => Math.max(0, Math.ceil(shown.length / PAGE) - 1);
  const buttons = () => [...list.querySelectorAll(".latent-row")];
  const render = () => {
    page = Math.min(page, last());
    list.replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(rowElement));
    buttons()[0]?.setAttribute("tabindex", "0");
    found.textContent = shown.length ? `${count(shown.length)} of ${count(rows.length)} latents` : "No latent fits.";
    get("latent-page").textContent = `${page + 1} of ${last() + 1}`;
    get("latent-back").disabled = page === 0;
    get("latent-on").disabled = page === last();
  };
  const focusRow = (place) => {
    const all = buttons();
    const target = all[Math.max(0, Math.min(all.length - 1, place))];
    all.forEach((button) => button.setAttribute("tabindex", button === target ? "0" : "-1"));
    target?.focus();
  };
  const turn = (step) => { page = Math.max(0, Math.min(last(), page + step)); render(); };

  list.addEventListener("keydown", (event) => {
    const place = buttons().indexOf(document.activeElement);
    const moves = {
      ArrowDown: () => place + 1 < buttons().length ? focusRow(place + 1) : page < last() && (turn(1), focusRow(0)),
      ArrowUp: () => place > 0 ? focusRow(place - 1) : page > 0 ? (turn(-1), focusRow(PAGE)) : get("latent-search").focus(),
      PageDown: () => page < last() && (turn(1), focusRow(0)),
      PageUp: () => page > 0 && (turn(-1), focusRow(0)),
      Home: () => focusRow(0),
      End: () => focusRow(PAGE),
    };
    if (place < 0 || !moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[event.key]();
  });
  get("latent-search").addEventListener("input", select);
  get("latent-search").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") { event.preventDefault(); focusRow(0); }
  });
  get("latent-tools").addEventListener("submit", (event) => { event.preventDefault(); focusRow(0); });
  get("latent-checkpoint").addEventListener("change", select);
  get("latent-sort").addEventListener("change", (event) => { rises = Boolean(orders[Number(event.target.value)].rises); select(); });
  get("latent-direction").addEventListener("click", () => { rises = !rises; select(); });
  get("latent-back").addEventListener("click", () => turn(-1));
  get("latent-on").addEventListener("click", () => turn(1));

  // An opened latent.
  const dialog = get("latent-dialog");
  const body = get("latent-body");
  let opened = null;
  const address = (row) => `#latents/${encodeURIComponent(index.checkpoints[row.c].name)}/${row.i}`;
  const note = (hash) => { try { history.replaceState(null, "", hash); } catch { /* a sandboxed page has no address */ } };
  const open = async (row) => {
    opened = row;
    const { name, null: isNull } = index.checkpoints[row.c];
    const tags = [isNull ? "null" : "", row.s ?? "", row.u ? "ultra-dense" : ""].filter(Boolean);
    get("latent-title").replaceChildren(`latent ${row.i} `, make("bdi", { class: "where" }, name),
      ...tags.map((tag) => make("span", { class: "badge" }, tag)));
    const place = shown.indexOf(row);
    get("latent-before").disabled = place <= 0;
    get("latent-next").disabled = place < 0 || place + 1 >= shown.length;
    body.replaceChildren(make("p", { class: "why" }, "Reading …"));
    body.setAttribute("aria-busy", "true");
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    note(address(row));
    let parts;
    try {
      const data = await load(row.p);
      parts = view(row, data, data.latents[row.place]);
    } catch (problem) {
      parts = [make("div", { class: "callout" }, make("h3", {}, "What this latent shows cannot be read"),
        make("p", {}, problem.message),
        make("p", {}, "Reports on many latents keep it in a folder beside the page: the folder must go where the page goes. "),
        make("p", {}, `autointerp show RUN --checkpoint ${name} --latent ${row.i}`))];
    }
    if (opened !== row) return;
    body.replaceChildren(...parts);
    body.removeAttribute("aria-busy");
  };
  const view = latentView(index, open);
  const step = (by) => { const row = shown[shown.indexOf(opened) + by]; if (opened && row) { open(row); get("latent-title").focus(); } };
  get("latent-before").addEventListener("click", () => step(-1));
  get("latent-next").addEventListener("click", () => step(1));
  get("latent-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey || event.target.closest(".scroll, pre")) return;
    event.preventDefault();
    step(by);
  });
  dialog.addEventListener("close", () => {
    const row = opened;
    opened = null;
    body.replaceChildren();
    note("#latents");
    if (document.activeElement?.matches("a[href^='#latents/']")) return;  // the reader came from there
    const place = shown.indexOf(row);
    if (place < 0) return;
    if (Math.floor(place / PAGE) !== page) { page = Math.floor(place / PAGE); render(); }
    focusRow(place % PAGE);
  });

  get("latent-legend").hidden = !shownMetrics.length;
  select();
  get("latents-app").dataset.ready = "true";
  const follow = () => {
    const linked = /^#latents\/(.+)\/(\d+)$/.exec(location.hash);
    if (!linked) return;
    const place = index.checkpoints.findIndex(({ name }) => encodeURIComponent(name) === linked[1]);
    const row = index.find(place, linked[2]);
    if (row) open(row);
  };
  addEventListener("hashchange", follow);
  follow();
})();
