export interface Document {
  id: string;
  score: number | null;
  content: string;
}

/** What a step read and wrote. */
export interface Contents {
  input: string;
  output: string;
  inputBytes: number;
  outputBytes: number;
  /** more of the text is stored than `input` and `output` have */
  inputCut: boolean;
  outputCut: boolean;
  documents: Document[];
  attributes: [string, string][];
}

/** Where the contents of a step come from: the server, or the page itself. */
export interface ContentSource {
  contents(step: string): Promise<Contents>;
  whole(step: string, which: "input" | "output"): Promise<string>;
}
