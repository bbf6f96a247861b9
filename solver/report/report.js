"use strict";
(() => {
  const overview = document.getElementById("overview");
  const problem = document.getElementById("problem");
  const title = document.title;
  let shown = null;
  let place = 0;

  async function unpacked(element) {
    const packed = Uint8Array.from(atob(element.textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }

  async function show(index) {
    const data = document.getElementById(`data-${index}`);
    if (!data) return false;
    if (shown !== index) {
      if (overview && !overview.hidden) place = scrollY;
      problem.innerHTML = await unpacked(data);
      problem.querySelector("nav .up").href = problem.dataset.overview || "#";
      shown = index;
    }
    document.title = `${problem.querySelector("h1").textContent} · ${title}`;
    if (overview) overview.hidden = true;
    problem.hidden = false;
    return true;
  }

  async function route() {
    const wanted = /^#problem-(\d+)(-attempt-\d+)?$/.exec(location.hash);
    const only = overview ? null : document.querySelector("script[id^=data-]").id.slice(5);
    const index = wanted ? wanted[1] : only;
    if (index !== null && (await show(index))) {
      const attempt = wanted && wanted[2] && document.getElementById(location.hash.slice(1));
      if (attempt) {
        attempt.open = true;
        attempt.scrollIntoView();
      } else {
        const first = problem.querySelector(".attempt");
        if (first) first.open = true;
        scrollTo(0, 0);
      }
    } else if (overview && overview.hidden) {
      problem.hidden = true;
      overview.hidden = false;
      document.title = title;
      scrollTo(0, place);
    }
    document.body.dataset.ready = location.hash || "#";
  }

  problem.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-open]");
    if (!button) return;
    const folds = [...problem.querySelectorAll(`details.${button.dataset.open}`)];
    const open = folds.some((fold) => !fold.open);
    for (const fold of folds) fold.open = open;
  });

  function value(row, column) {
    const text = row.cells[column].dataset.value;
    return text === "" ? null : /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
  }

  function compare(a, b) {
    if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  for (const table of document.querySelectorAll("table.list")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    for (const button of table.tHead.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        const column = Number(button.dataset.column);
        const head = heads[column];
        const falling = head.getAttribute("aria-sort") === "ascending";
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const sign = falling ? -1 : 1;
        const rows = [...body.rows].map((row) => [value(row, column), row]);
        rows.sort(([a], [b]) => (a === null || b === null ? compare(a, b) : sign * compare(a, b)));
        body.append(...rows.map(([, row]) => row));
      });
    }
  }

  const listed = document.getElementById("problems");
  if (listed) {
    const search = document.getElementById("search");
    const filters = [...document.querySelectorAll("button[data-filter]")];
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/);
      const kind = filters.find((b) => b.getAttribute("aria-pressed") === "true").dataset.filter;
      let count = 0;
      for (const row of listed.tBodies[0].rows) {
        const text = row.cells[1].textContent.toLowerCase();
        const fits =
          kind === "all" ||
          (kind === "warned" ? row.dataset.warned !== "0" : row.classList.contains(kind));
        row.hidden = !fits || !words.every((word) => text.includes(word));
        count += !row.hidden;
      }
      document.getElementById("none").hidden = count > 0;
    };
    search.addEventListener("input", filter);
    for (const button of filters) {
      button.addEventListener("click", () => {
        for (const each of filters) each.setAttribute("aria-pressed", String(each === button));
        filter();
      });
    }
  }

  addEventListener("hashchange", route);
  route();
})();
