/** Who uses the page and what the server allows. */
export const session = $state({
  known: false,
  user: "",
  mayAct: false,
  /** why acting is not possible, in words; "" where it is */
  readOnly: "",
  project: "",
  projects: [] as string[],
  version: "",
  firing: 0,
});
