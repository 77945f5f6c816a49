"use strict";
// What an opened latent shows, as elements. All that came from outside enters as text nodes and attribute
// values that nothing interprets; there is no innerHTML anywhere.
const latentElements = (() => {
  const fill = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
    return element;
  };
  const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const draw = (tag, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  const signed = (text) => text.replace("-", "−");
  const strength = (value) => signed(String(Number(value.toPrecision(3))));
  const score = (value) => signed(value.toFixed(2)).replace("−0.00", "0.00");
  const count = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const share = (value) => `${value >= 0.095 ? Math.round(100 * value) : Number((100 * value).toPrecision(2))} %`;
  const frequency = (density) => density >= 0.1 ? `${share(density)} of tokens`
    : density > 0 ? `1 in ${count(Math.round(1 / density))} tokens` : "never";
  const quoted = (text) => text.replace(/ {4,}/g, (run) => `␣×${run.length}`).replaceAll(" ", "␣") || "(empty)";
  const token = (text) => make("bdi", { class: "token" }, quoted(text));
  const percent = (value) => `${(100 * Math.min(1, Math.max(0, value))).toFixed(1)}%`;

  // A score with its interval on [0, 1], a stroke where chance is, and a ring where the borrowed null is.
  const bar = ([value, low, high], borrowed, chance) => {
    const place = (name, left, width) => {
      const mark = make("span", { class: name });
      mark.style.left = percent(left);
      if (width !== undefined) mark.style.width = percent(width);
      return mark;
    };
    const [from, to] = [Math.max(0, low), Math.min(1, high)];
    return make("span", { class: "bar", "aria-hidden": "true" },
      chance ? place("chance", chance) : null, place("span", from, Math.max(0, to - from)),
      borrowed === null || borrowed === undefined ? null : place("ring", borrowed), place("dot", value));
  };

  const bars = (heights, width, height) => {
    const step = width / heights.length;
    return draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true", class: "bars" },
      heights.map((share, place) => draw("rect", {
        x: (place * step).toFixed(2), width: Math.max(0.5, step - 1).toFixed(2),
        y: (height * (1 - share)).toFixed(2), height: (height * share).toFixed(2),
      })));
  };

  // Texts of tokens, the firing ones shaded by 255 steps of their share of the maximum.
  const strip = (texts, { fired, focus, maximum, from, to, whole, expected }) => {
    const nodes = [from > 0 ? "…" : ""];
    let plain = "";
    for (let place = from; place < to; place += 1) {
      const text = whole ? texts[place].replaceAll("⏎", "⏎\n") : texts[place];
      const value = fired.get(place);
      if (value === undefined && place !== focus) { plain += text; continue; }
      nodes.push(plain);
      plain = "";
      const kinds = [value === undefined ? "" : value < 0 ? "fires negative" : "fires", expected ? "expected" : "",
        place === focus ? "focus" : ""].filter(Boolean).join(" ");
      const mark = make("span", { class: kinds, title: value === undefined ? null : strength(value) }, text);
      if (value !== undefined) {
        const step = Math.round(255 * Math.min(1, Math.abs(value) / maximum));
        mark.style.setProperty("--share", (step / 255).toFixed(3));
        if (whole) mark.append(make("sub", {}, strength(value)));
      }
      nodes.push(mark);
    }
    nodes.push(plain, to < texts.length ? "…" : "");
    return nodes.filter((node) => node !== "");
  };

  const around = (texts, focus) => {
    let [from, to, left, right] = [focus, focus + 1, 100, 80];
    while (from > 0 && left > 0) { from -= 1; left -= texts[from].length; }
    while (to < texts.length && right > 0) { right -= texts[to].length; to += 1; }
    return [from, to];
  };

  return { make, draw, strength, score, count, share, frequency, token, quoted, bar, bars, strip, around };
})();

const latentView = (index, open) => {
  const { make, strength, score, count, share, frequency, token, bar, bars, strip, around } = latentElements;
  const SPLITS = [["seen", "an explainer may have seen it"], ["chosen on", "candidates were chosen on it"],
    ["held out", "no explainer saw it: scores are made on such text"]];
  const named = new Map(index.checkpoints.map((checkpoint, place) => [checkpoint.name, place]));
  const words = (name) => name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");
  const part = (title, ...children) => make("section", { class: "part" }, make("h4", {}, title), ...children);

  const decode = (page, number) => {
    page.decoded ??= [];
    page.decoded[number] ??= [...page.contexts[number]].map((character) => {
      const code = character.codePointAt(0);
      return page.texts[(code < 0xd800 ? code : code - 0x800) - 0x23];
    });
    return page.decoded[number];
  };

  const example = (page, entry, maximum, { label, tag, focused = true, marked = focused, note = null, expected = null }) => {
    const [number, begin, end, focus, split, places = [], values = []] = entry;
    const texts = decode(page, number).slice(begin, end);
    const fired = new Map(places.map((place, at) => [place, values[at]]));
    const [from, to] = focused ? around(texts, focus) : [0, texts.length];
    const shade = { fired, focus: marked ? focus : -1, maximum };
    const lines = make("div", { class: "lines" });
    const show = (whole) => {
      const range = whole ? [0, texts.length] : [from, to];
      const line = (marks, options, which) => make("p", { class: whole ? "text whole" : "text", dir: "auto" },
        which ? make("span", { class: "which" }, which) : null, strip(texts, { ...marks, from: range[0], to: range[1], whole, ...options }));
      lines.replaceChildren(line(shade, {}, expected ? "fires" : ""));
      if (expected) {
        const said = new Map(expected.map((value, place) => [place, value]).filter(([, value]) => value > 0.02 * maximum));
        lines.append(line({ fired: said, focus: -1, maximum }, { expected: true }, "expected"));
      }
    };
    show(false);
    const toggle = make("button", { type: "button", class: "value", "aria-expanded": "false",
      "aria-label": `${label}: show the whole context with its activations` }, label);
    toggle.addEventListener("click", () => {
      const whole = toggle.getAttribute("aria-expanded") === "false";
      toggle.setAttribute("aria-expanded", String(whole));
      show(whole);
    });
    const marks = tag !== undefined ? (tag ? make("span", { class: "tag" }, tag) : null)
      : split === undefined ? null : make("span", { class: `tag split-${split}`, title: SPLITS[split][1] }, SPLITS[split][0]);
    return make("li", { class: "example" }, toggle, lines, make("span", { class: "tags" }, marks, note));
  };

  const examples = (page, entry, maximum) => {
    const bySampler = new Map();
    for (const group of entry.groups ?? []) {
      if (!bySampler.has(group[0])) bySampler.set(group[0], []);
      bySampler.get(group[0]).push(group);
    }
    return [...bySampler].map(([number, groups]) => {
      const sampler = index.samplers[number];
      const items = groups.flatMap(([, stratum, strata, , , entries]) => entries.map((each) => {
        const at = each[5]?.indexOf(each[3]) ?? -1;
        const note = strata > 1 ? make("span", { class: "tag" }, `range ${stratum + 1} of ${strata}`) : null;
        return example(page, each, maximum, { label: at < 0 ? "silent" : strength(each[6][at]), marked: sampler.marked, note });
      }));
      const total = groups.reduce((sum, group) => sum + group[4], 0);
      return make("div", { class: "group" },
        make("h5", {}, sampler.title, make("small", {}, `${sampler.meaning} ${items.length} of ${count(total)}.`)),
        make("ul", { class: "examples" }, items));
    });
  };

  const mistakes = (page, entry, maximum) => (entry.mistakes ?? []).map((group) => {
    const isFuzzing = group.method === "fuzzing";
    const items = group.passages.map(([fires, said, each, expected]) => {
      const kind = expected ? null : isFuzzing ? (fires ? "right marks, said wrong" : "wrong marks, said right")
        : fires ? "missed" : "false alarm";
      const label = said === null ? "far off" : `said ${score(said)}`;
      return example(page, each, maximum, { label, tag: kind ?? "", focused: false, expected });
    });
    const judge = group.judge === group.method ? "" : `Judged by ${group.judge}, `;
    const which = `${judge}${judge ? "explained" : "Explained"} by ${group.explainer}. `;
    const told = group.wrong === undefined ? `The furthest from the truth of ${count(group.asked)}.`
      : `${count(group.wrong)} of ${count(group.asked)} wrong, the worst of either kind.`;
    const title = group.method === "token_table" ? "Token by token" : words(group.method);
    return make("div", { class: "group" }, make("h5", {}, title, make("small", {}, which + told)),
      make("ul", { class: "examples" }, items));
  });

  const scoreCell = (value, borrowed, title) => {
    if (value === null || value === undefined) return make("td", { class: "number" }, "–");
    if (typeof value === "string") return make("td", { class: "missing" }, value);
    return make("td", { class: "number" }, make("span", { class: "main" }, score(value[0])),
      make("span", { class: "detail" }, `[${score(value[1])}, ${score(value[2])}]`),
      borrowed === undefined ? null : bar(value, borrowed, /AUROC/.test(title) ? 0.5 : 0));
  };
  const scoreTable = (rows) => {
    const judges = new Set(rows.map(([kind]) => index.kinds[kind][2]));
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores" },
      make("table", { class: "latent-scores" }, make("thead", {}, make("tr", {},
        ["Test", "Own", "Borrowed", "Empty", "Passages"].map((title) => make("th", { scope: "col" }, title)))),
      make("tbody", {}, rows.map(([kind, passages, own, borrowed, empty]) => {
        const [title, narrowing, judge] = index.kinds[kind];
        return make("tr", {}, make("th", { scope: "row" }, title, narrowing ? ` · ${narrowing}` : "",
          judges.size > 1 && judge ? make("span", { class: "detail" }, `by ${judge}`) : null),
        scoreCell(own, borrowed?.[0] ?? null, title), scoreCell(borrowed), scoreCell(empty),
        make("td", { class: "number" }, passages ? count(passages) : "–"));
      }))));
  };
  const explanation = (each) => {
    const headline = each.scores.filter(([kind]) => !index.kinds[kind][1]);
    const narrow = each.scores.filter(([kind]) => index.kinds[kind][1]);
    const main = headline.filter(([kind]) => /AUROC|correlation/i.test(index.kinds[kind][0]));
    const rest = headline.filter((row) => !main.includes(row));
    const more = [...rest, ...narrow];
    return make("div", { class: "explanation" },
      each.text === undefined ? (each.why ? make("p", { class: "why" }, `No explanation: ${each.why}`) : null)
        : make("p", { class: "said", dir: "auto" }, each.text),
      make("p", { class: "by" }, `by ${each.by}`),
      main.length ? scoreTable(main) : null,
      more.length ? make("details", {}, make("summary", {}, more.length === 1 ? "1 more score" : `${more.length} more scores`), scoreTable(more)) : null);
  };

  const histogram = ({ low, high, counts }) => {
    const most = Math.max(...counts);
    return make("figure", { class: "histogram", role: "img",
      "aria-label": `Histogram of activations from ${strength(low)} to ${strength(high)}, ${counts.length} bars` },
    bars(counts.map((each) => each / most), 264, 64),
    make("figcaption", {}, make("span", {}, strength(low)), make("span", {}, "|activation|, logarithmic"), make("span", {}, strength(high))));
  };
  const activity = (row, { firing, histogram: found }) => {
    const facts = [["fires on", frequency(row.d)], ["tokens", count(firing.tokens)],
      ["documents", `${count(firing.documents)} (${share(firing.documentShare ?? 0)})`],
      ["median", firing.quantiles ? strength(firing.quantiles[2]) : null],
      ["largest", firing.maximum === undefined ? null : strength(firing.maximum)],
      ["stands for", firing.weight === undefined ? null : `${strength(firing.weight)} live latents`]];
    return part("Activity", found ? histogram(found) : null, make("dl", { class: "pairs" },
      facts.filter(([, value]) => value).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
    firing.reason ? make("p", { class: "why" }, firing.reason) : null);
  };

  const tokens = (page, title, rows, format) => {
    if (!rows) return null;
    const most = Math.max(...rows.map(([, value]) => Math.abs(value)));
    return make("div", {}, make("h5", {}, title), make("ol", { class: "tokens" }, rows.map(([number, value, least]) => {
      const item = make("li", {}, token(page.texts[number]), make("span", { class: "amount" }, (least ? "≥ " : "") + format(value)));
      item.style.setProperty("--share", (Math.abs(value) / most).toFixed(3));
      return item;
    })));
  };

  const other = (checkpoint, latent, amount, hint) => {
    const target = index.find(checkpoint, latent);
    const who = target ? make("button", { type: "button", class: "link" }, `latent ${latent}`) : make("span", {}, `latent ${latent}`);
    who.addEventListener?.("click", () => { if (target) open(target); });
    return make("li", { title: hint ?? null }, who, make("span", { class: "amount" }, amount));
  };
  const company = (row, entry) => {
    const near = entry.near?.map(([latent, cosine]) => other(row.c, latent, cosine === null ? "–" : strength(cosine)));
    const together = entry.together?.map(([latent, both, lift]) =>
      other(row.c, latent, both === null ? "–" : share(both), lift === null ? null : `${strength(lift)} times as often as by chance`));
    const lists = [["Nearest directions, cosine", near], ["Fires together, share of its firings", together]];
    return lists.filter(([, items]) => items?.length).map(([title, items]) =>
      make("div", {}, make("h5", {}, title), make("ul", { class: "others" }, items)));
  };
  const matches = (entry) => entry.matches?.length ? part("In other checkpoints",
    make("p", { class: "why" }, "The latent of each whose direction is nearest, by cosine."),
    make("ul", { class: "others" }, entry.matches.map(([name, latent, cosine]) => {
      const item = other(named.get(name), latent, strength(cosine));
      item.prepend(make("bdi", { class: "where" }, name));
      return item;
    }))) : null;

  return (row, page, entry) => {
    const maximum = row.m || 1;
    const shown = examples(page, entry, maximum);
    const wrong = mistakes(page, entry, maximum);
    const around = [["Before its peaks", "before", share], ["At its peaks", "at", share], ["After its peaks", "after", share]]
      .map(([title, key, format]) => tokens(page, title, entry[key], format));
    const raised = [["Promotes", "promoted", strength], ["Demotes", "demoted", strength]]
      .map(([title, key, format]) => tokens(page, title, entry[key], format));
    const near = company(row, entry);
    return [
      make("div", { class: "latent-main" },
        entry.explanations ? part("What it is said to mean", entry.explanations.map(explanation)) : null,
        shown.length ? part("Where it fires, and where not", make("p", { class: "why" },
          "Shaded by the share of its largest activation; underlined is the token that was drawn. Held out: no explainer saw it."), shown) : null,
        wrong.length ? part("Judged wrong", wrong) : null,
        entry.graph ? part("Its graph", make("p", { class: "why" }, "Neuron to Graph, read backwards from the token on which it fires; × counts the examples that a path is from."),
          make("pre", { tabindex: "0", role: "region", "aria-label": "Graph" }, entry.graph.join("\n"))) : null),
      make("aside", { class: "latent-side", "aria-label": "Facts" },
        activity(row, entry),
        around.some(Boolean) ? part("Tokens", around) : null,
        raised.some(Boolean) ? part("What it adds to the logits", raised) : null,
        near.length ? part("Neighbours", near) : null,
        matches(entry)),
    ];
  };
};
