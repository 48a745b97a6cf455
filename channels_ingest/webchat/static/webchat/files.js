// Files beside the text: chosen, pasted or dropped, and sent at once, each with its progress. The message that
// names them follows once all have arrived.

const by = (id) => document.getElementById(id);

export class Files {
  // upload(file, progress): a promise of {file, kind, name, size} or of {error}; it has abort().
  constructor(upload, changed) {
    this.upload = upload;
    this.changed = changed;
    this.list = by("files");
    this.largest = Number(this.list.dataset.largest); // bytes that the server takes
    this.most = Number(this.list.dataset.most); // files of a message
    this.items = [];
    this.#listen();
  }

  // True while the message cannot be sent: a file is on its way or was refused.
  get busy() {
    return this.items.some((item) => !item.sent);
  }

  // Take the files that have arrived, for a message.
  take() {
    const taken = this.items.filter((item) => item.sent);
    this.items = this.items.filter((item) => !item.sent);
    for (const item of taken) item.element.remove();
    this.#shown();
    return taken.map((item) => item.sent);
  }

  reset() {
    for (const item of this.items) item.transfer?.abort();
    this.items = [];
    this.list.replaceChildren();
    this.#shown();
  }

  add(files) {
    for (const file of files) this.#add(file);
    this.#shown();
  }

  #add(file) {
    const item = { file, element: document.createElement("li") };
    this.items.push(item);
    this.list.append(item.element);
    if (this.items.length > this.most) this.#refuse(item, `More than ${this.most} files. Send this one with the next message.`);
    else if (file.size > this.largest) this.#refuse(item, `Larger than ${Math.floor(this.largest / 2 ** 20)} MB.`);
    else if (!file.size) this.#refuse(item, "It is empty.");
    else this.#begin(item);
  }

  async #begin(item) {
    item.error = null;
    const bar = Object.assign(document.createElement("progress"), { max: 1, value: 0, ariaLabel: item.file.name });
    this.#draw(item, bar);
    item.transfer = this.upload(item.file, (share) => (bar.value = share));
    const answer = await item.transfer;
    if (!this.items.includes(item)) return;
    if (answer.error) return this.#refuse(item, answer.error, answer.again);
    item.sent = answer;
    this.#draw(item);
    this.#shown();
  }

  #refuse(item, words, again = false) {
    item.error = words;
    const more = [Object.assign(document.createElement("span"), { className: "why", textContent: words })];
    if (again) more.push(button("Try again", () => this.#begin(item)));
    this.#draw(item, ...more);
    item.element.classList.add("refused");
    this.#shown();
  }

  #draw(item, ...more) {
    item.element.className = "";
    const name = Object.assign(document.createElement("span"), { className: "name", dir: "auto", textContent: item.file.name || "Picture" });
    item.element.replaceChildren(name, ...more, button("Remove", () => this.#remove(item), `Remove ${item.file.name}`));
  }

  #remove(item) {
    item.transfer?.abort();
    this.items = this.items.filter((other) => other !== item);
    item.element.remove();
    this.#shown();
    by("text").focus();
  }

  #shown() {
    this.list.hidden = !this.items.length;
    this.changed();
  }

  #listen() {
    by("attach").addEventListener("click", () => by("chosen").click());
    by("chosen").addEventListener("change", () => {
      this.add(by("chosen").files);
      by("chosen").value = "";
    });
    by("text").addEventListener("paste", (event) => {
      const files = event.clipboardData?.files ?? [];
      if (!files.length) return;
      event.preventDefault();
      this.add(files);
    });
    const over = (event, shown) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      document.body.classList.toggle("dropping", shown);
    };
    document.addEventListener("dragover", (event) => over(event, true));
    document.addEventListener("dragleave", (event) => event.relatedTarget || over(event, false));
    document.addEventListener("drop", (event) => {
      over(event, false);
      this.add(event.dataTransfer?.files ?? []);
    });
  }
}

function button(words, onclick, label = words) {
  return Object.assign(document.createElement("button"), { type: "button", textContent: words, ariaLabel: label, onclick });
}
