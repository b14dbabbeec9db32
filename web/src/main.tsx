import { render } from "preact";
import "./style.css";
import { applyTheme, Frame } from "./frame";
import { followLinks, usePlace, type Place } from "./route";
import { Alerts } from "./views/alerts";
import { Health } from "./views/health";
import { Monitors } from "./views/monitors";
import { Operations } from "./views/operations";
import { Overview } from "./views/overview";
import { Quality } from "./views/quality";
import { Sample } from "./views/sample";
import { Samples } from "./views/samples";
import { Tokens } from "./views/tokens";

const VIEWS: Record<string, (props: { place: Place }) => preact.JSX.Element> = {
  "/": Overview,
  "/tokens": Tokens,
  "/quality": Quality,
  "/operations": Operations,
  "/samples": Samples,
  "/monitors": Monitors,
  "/alerts": Alerts,
  "/health": Health,
};

/** Views of one thing, which the rest of the path names. */
const BELOW: [path: string, view: (props: { place: Place }) => preact.JSX.Element][] = [
  ["/samples/", Sample],
  ["/monitors/", Monitors],
];

function Page() {
  const place = usePlace();
  const View = VIEWS[place.path] ?? BELOW.find(([path]) => place.path.startsWith(path))?.[1] ?? Overview;
  return (
    <Frame place={place}>
      <View place={place} key={place.path} />
    </Frame>
  );
}

applyTheme();
// Messages of alerts lead to `/#/monitors/NAME`.
if (location.hash.startsWith("#/")) history.replaceState(null, "", location.hash.slice(1));
addEventListener("click", followLinks);
const root = document.getElementById("page");
if (root) {
  root.textContent = "";
  render(<Page />, root);
}
