import { mount } from "svelte";
import Exported from "./Exported.svelte";
import "./styles/index.css";

const data = JSON.parse(document.getElementById("stepstream-data")?.textContent ?? "{}");
mount(Exported, { target: document.getElementById("app") as HTMLElement, props: { data } });
