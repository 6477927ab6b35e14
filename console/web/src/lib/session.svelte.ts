/** Who uses the page and what the server allows. */
export const session = $state({
  known: false,
  user: "",
  mayAct: false,
  /** signed in by a cookie of this console, which can be signed out */
  bySession: false,
  /** why acting is not possible, in words; "" where it is */
  readOnly: "",
  project: "",
  projects: [] as string[],
  version: "",
  firing: 0,
});
