// Content is hostile. It is only ever a text node, and what would be invisible or turn the writing
// around is shown by its number instead.

// Controls other than tab and line feed; marks that set the direction of writing; what has no width;
// the tag characters. Joiners stay: some scripts and emoji need them.
// eslint-disable-next-line no-control-regex
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

const name = (mark: string) => `U+${(mark.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;

/** The text with its hidden characters spelt out: for attributes and downloads. */
export const spelt = (text: string) => text.replace(HIDDEN, (mark) => (mark === "\r" ? "" : `[${name(mark)}]`));

/** Content, as text. */
export function Content({ text }: { text: string }) {
  const parts: preact.ComponentChild[] = [];
  let end = 0;
  for (const found of text.matchAll(HIDDEN)) {
    parts.push(text.slice(end, found.index));
    if (found[0] !== "\r") parts.push(<span class="mark">{name(found[0])}</span>);
    end = found.index + found[0].length;
  }
  parts.push(text.slice(end));
  return (
    <bdi class="content" dir="auto">
      {parts}
    </bdi>
  );
}
