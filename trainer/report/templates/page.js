// Everything is on the page without this: it only shows one group at a time, sorts it, and finds words in prompts.
for (const gallery of document.querySelectorAll(".gallery")) {
  const controls = gallery.querySelector(".controls");
  const { group, order, words } = controls.elements;
  const groups = [...gallery.querySelectorAll(".group")].map((section) => {
    const pairs = section.querySelector(".pairs");
    return { section, pairs, asWritten: [...pairs.children] };
  });
  const gain = (card) => Number(card.dataset.gain);
  const prompt = (card) => card.querySelector(".prompt").textContent;
  const orders = {
    gain: (a, b) => gain(b) - gain(a),
    loss: (a, b) => gain(a) - gain(b),
    prompt: (a, b) => prompt(a).localeCompare(prompt(b)),
  };

  const update = () => {
    const wanted = words.value.trim().toLowerCase();
    groups.forEach(({ section, pairs, asWritten }, i) => {
      section.hidden = i !== Number(group.value);
      if (section.hidden) return;
      const cards = asWritten.filter((each) => each.matches(".pair"));
      const written = order.value === "place";
      pairs.replaceChildren(...(written ? asWritten : cards.sort(orders[order.value])));
      let found = 0;
      for (const card of cards) {
        card.hidden = !card.textContent.toLowerCase().includes(wanted);
        found += !card.hidden;
      }
      for (const each of asWritten) if (each.matches(".place")) each.hidden = wanted !== "";
      controls.querySelector("output").textContent = wanted ? `${found} of ${cards.length}` : "";
    });
  };
  controls.addEventListener("input", update);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  update();
}
