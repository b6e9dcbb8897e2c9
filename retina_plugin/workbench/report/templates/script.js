// What the page does beyond being read: tabs, sortable tables, a class picked out of the curves.
(() => {
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  document.documentElement.classList.add("scripted");

  const tests = all(".test");
  const show = () => {
    const target = location.hash ? document.getElementById(location.hash.slice(1)) : null;
    const chosen = (target && target.closest(".test")) ||
      (target ? null : tests[0]) || tests.find((x) => x.classList.contains("on")) || tests[0];
    tests.forEach((x) => x.classList.toggle("on", x === chosen));
    all(".tabs a").forEach((x) => x.classList.toggle("on", !!chosen && x.hash === `#${chosen.id}`));
    if (target && target !== chosen) target.scrollIntoView();
  };
  addEventListener("hashchange", show);
  show();

  all("table.sortable").forEach((table) => {
    all("thead th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        all("thead th", table).forEach((x) => x.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
        const order = (a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === "" || y === "") return (x === "") - (y === ""); // what is undefined comes last
          const found = isNaN(x) || isNaN(y) ? y.localeCompare(x) : y - x;
          return down ? found : -found;
        };
        table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
      });
    });
  });

  all("select.classes").forEach((select) => {
    const charts = select.closest("section");
    select.addEventListener("change", () => {
      all(".line.faint", charts).forEach((line) => {
        const on = line.dataset.key === select.value;
        line.classList.toggle("on", on);
        if (on) line.parentNode.append(line); // above the others
      });
    });
  });

  addEventListener("beforeprint", () => all("details:not(.long)").forEach((x) => { x.open = true; }));
})();
