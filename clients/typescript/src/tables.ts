// Generated from the Python source by `python -m tests.support.typescript_tables`: do not edit.

export const KINDS = [
  "agent",
  "plan",
  "tool_selection",
  "tool_call",
  "retrieval",
  "llm_call",
  "state_update",
  "guardrail",
  "evaluation",
  "control",
  "output",
  "other"
] as const;

/** What a step is. Another word becomes `other`, and an attribute of the step. */
export type Kind = (typeof KINDS)[number];

export const STATUSES = [
  "cancelled",
  "error",
  "ok"
] as const;

export type Status = (typeof STATUSES)[number];

export const COMMAND_FIELDS = [
  "command_id",
  "action",
  "time",
  "project",
  "environment",
  "agent",
  "trace_id",
  "reason",
  "alert_id",
  "finding_id",
  "by",
  "expires",
  "budget_usd"
] as const;

export const ACTIONS = [
  "stop",
  "pause",
  "resume",
  "warn"
] as const;

export type Action = (typeof ACTIONS)[number];

/** What a step used; each count is the step's own, without those of its children. */
export interface Usage {
  /** all input tokens, cached and cache-written ones included */
  inputTokens?: number;
  /** all output tokens, reasoning included */
  outputTokens?: number;
  /** input tokens read from the provider's cache */
  cachedInputTokens?: number;
  /** input tokens written to the provider's cache */
  cacheWriteTokens?: number;
  /** output tokens spent on reasoning */
  reasoningTokens?: number;
  /** the part of cache_write_tokens that is kept for an hour */
  cacheWrite1hTokens?: number;
  /** the part of input_tokens that is audio */
  inputAudioTokens?: number;
  /** the part of input_tokens that is images */
  inputImageTokens?: number;
  /** the part of input_tokens that is video */
  inputVideoTokens?: number;
  /** the part of cached_input_tokens that is audio */
  cachedAudioTokens?: number;
  /** the part of cached_input_tokens that is images */
  cachedImageTokens?: number;
  /** the part of output_tokens that is audio */
  outputAudioTokens?: number;
  /** the part of output_tokens that is images */
  outputImageTokens?: number;
  /** the part of output_tokens that is video */
  outputVideoTokens?: number;
  /** the part of output_tokens that is citations */
  citationTokens?: number;
  /** characters, where speech is charged by them */
  inputCharacters?: number;
  /** milliseconds of audio, where transcription is charged by duration */
  audioMs?: number;
  /** pages read, where document recognition is charged by them */
  documentPages?: number;
  /** the part of document_pages that was annotated */
  annotatedPages?: number;
  /** text messages, where voice sessions are charged by them */
  textMessages?: number;
  /** web searches that the provider made */
  webSearches?: number;
  /** searches of social networks that the provider made */
  socialSearches?: number;
  /** searches of stored files that the provider made */
  storageSearches?: number;
  /** runs of code at the provider's */
  codeExecutions?: number;
  /** searches that were ranked anew, where they are charged by number */
  rerankSearches?: number;
  /** counts are missing or were wrong: they are a lower bound and the cost is unknown */
  incomplete?: boolean;
}

export const USAGE_FIELDS = {
  "inputTokens": "input_tokens",
  "outputTokens": "output_tokens",
  "cachedInputTokens": "cached_input_tokens",
  "cacheWriteTokens": "cache_write_tokens",
  "reasoningTokens": "reasoning_tokens",
  "cacheWrite1hTokens": "cache_write_1h_tokens",
  "inputAudioTokens": "input_audio_tokens",
  "inputImageTokens": "input_image_tokens",
  "inputVideoTokens": "input_video_tokens",
  "cachedAudioTokens": "cached_audio_tokens",
  "cachedImageTokens": "cached_image_tokens",
  "outputAudioTokens": "output_audio_tokens",
  "outputImageTokens": "output_image_tokens",
  "outputVideoTokens": "output_video_tokens",
  "citationTokens": "citation_tokens",
  "inputCharacters": "input_characters",
  "audioMs": "audio_ms",
  "documentPages": "document_pages",
  "annotatedPages": "annotated_pages",
  "textMessages": "text_messages",
  "webSearches": "web_searches",
  "socialSearches": "social_searches",
  "storageSearches": "storage_searches",
  "codeExecutions": "code_executions",
  "rerankSearches": "rerank_searches",
  "incomplete": "incomplete"
} as const;

export const SHORT_TEXTS = [
  "name",
  "tool",
  "model",
  "provider",
  "project",
  "environment",
  "agent",
  "agent_version",
  "task",
  "session_id",
  "user_id",
  "error_type",
  "price_version",
  "tool_schema"
] as const;

export const LIMITS = {
  "recordBytes": 1048576,
  "contentBytes": 65536,
  "textChars": 512,
  "messageChars": 4096,
  "attributes": 64,
  "attributeChars": 4096,
  "documents": 256,
  "usageCount": 1000000000,
  "contentDepth": 12,
  "keyChars": 256,
  "slackChars": 4096,
  "shortestFile": 1024,
  "shortestDataUrl": 256,
  "wordChars": 2048
} as const;

export const DEFAULTS = {
  "project": "default",
  "captureContent": true,
  "captureSample": 1.0,
  "maxContentBytes": 16384,
  "queueEvents": 50000,
  "queueBytes": 67108864,
  "control": true,
  "endpoint": "http://127.0.0.1:4318",
  "pauseLimitMs": 900000
} as const;

export const HTTP = {
  "stepsPath": "/v1/steps",
  "batchEvents": 512,
  "batchBytes": 1048576,
  "answerMs": 10000,
  "firstRetryMs": 100,
  "longestRetryMs": 5000,
  "longestRetryAfterMs": 60000,
  "firstReconnectMs": 500,
  "longestReconnectMs": 30000
} as const;

export const REFUSED: readonly number[] = [
  400,
  413,
  415,
  422
];

export const MISCONFIGURED: readonly number[] = [
  401,
  403,
  404,
  405
];

export const TRACE_STATE = {
  "key": "stepstream",
  "value": "1"
} as const;

export const ID_NAMESPACE = "6f1c1c7e54a55a6e9a537374657073aa" as const;

export const CONTROL_KIND = "control" as const;

export const REDACTED = "[redacted]" as const;

export const KEYS: readonly (readonly [string, string])[] = [
  [
    "sk-",
    "sk\\-(?<![A-Za-z0-9_-]sk\\-)(?:(?=[A-Za-z_-]*\\d)[A-Za-z0-9_-]{16,}|[A-Za-z0-9]{24,})"
  ],
  [
    "gsk_",
    "gsk_(?<![A-Za-z0-9]gsk_)[A-Za-z0-9]{20,}"
  ],
  [
    "xai-",
    "xai\\-(?<![A-Za-z0-9]xai\\-)[A-Za-z0-9]{20,}"
  ],
  [
    "pplx-",
    "pplx\\-(?<![A-Za-z0-9]pplx\\-)[A-Za-z0-9]{20,}"
  ],
  [
    "r8_",
    "r8_(?<![A-Za-z0-9]r8_)[A-Za-z0-9]{30,}"
  ],
  [
    "hf_",
    "hf_(?<![A-Za-z0-9]hf_)[A-Za-z0-9]{30,}"
  ],
  [
    "tvly-",
    "tvly\\-(?<![A-Za-z0-9]tvly\\-)[A-Za-z0-9-]{20,}"
  ],
  [
    "lsv2_pt_",
    "lsv2_pt_(?<![A-Za-z0-9]lsv2_pt_)[A-Za-z0-9_]{30,}"
  ],
  [
    "lsv2_sk_",
    "lsv2_sk_(?<![A-Za-z0-9]lsv2_sk_)[A-Za-z0-9_]{30,}"
  ],
  [
    "GOCSPX-",
    "GOCSPX\\-(?<![A-Za-z0-9]GOCSPX\\-)[A-Za-z0-9_-]{20,}"
  ],
  [
    "ya29.",
    "ya29\\.(?<![A-Za-z0-9]ya29\\.)[A-Za-z0-9_-]{20,}"
  ],
  [
    "ghp_",
    "ghp_(?<![A-Za-z0-9]ghp_)[A-Za-z0-9]{30,}"
  ],
  [
    "gho_",
    "gho_(?<![A-Za-z0-9]gho_)[A-Za-z0-9]{30,}"
  ],
  [
    "ghu_",
    "ghu_(?<![A-Za-z0-9]ghu_)[A-Za-z0-9]{30,}"
  ],
  [
    "ghs_",
    "ghs_(?<![A-Za-z0-9]ghs_)[A-Za-z0-9]{30,}"
  ],
  [
    "ghr_",
    "ghr_(?<![A-Za-z0-9]ghr_)[A-Za-z0-9]{30,}"
  ],
  [
    "github_pat_",
    "github_pat_(?<![A-Za-z0-9]github_pat_)[A-Za-z0-9_]{30,}"
  ],
  [
    "glpat-",
    "glpat\\-(?<![A-Za-z0-9]glpat\\-)[A-Za-z0-9_-]{20,}"
  ],
  [
    "gldt-",
    "gldt\\-(?<![A-Za-z0-9]gldt\\-)[A-Za-z0-9_-]{20,}"
  ],
  [
    "glrt-",
    "glrt\\-(?<![A-Za-z0-9]glrt\\-)[A-Za-z0-9_-]{20,}"
  ],
  [
    "glptt-",
    "glptt\\-(?<![A-Za-z0-9]glptt\\-)[A-Za-z0-9_-]{20,}"
  ],
  [
    "glcbt-",
    "glcbt\\-(?<![A-Za-z0-9]glcbt\\-)[A-Za-z0-9_-]{20,}"
  ],
  [
    "glagent-",
    "glagent\\-(?<![A-Za-z0-9]glagent\\-)[A-Za-z0-9_-]{20,}"
  ],
  [
    "xoxa-",
    "xoxa\\-(?<![A-Za-z0-9]xoxa\\-)[A-Za-z0-9-]{10,}"
  ],
  [
    "xoxb-",
    "xoxb\\-(?<![A-Za-z0-9]xoxb\\-)[A-Za-z0-9-]{10,}"
  ],
  [
    "xoxc-",
    "xoxc\\-(?<![A-Za-z0-9]xoxc\\-)[A-Za-z0-9-]{10,}"
  ],
  [
    "xoxe-",
    "xoxe\\-(?<![A-Za-z0-9]xoxe\\-)[A-Za-z0-9-]{10,}"
  ],
  [
    "xoxo-",
    "xoxo\\-(?<![A-Za-z0-9]xoxo\\-)[A-Za-z0-9-]{10,}"
  ],
  [
    "xoxp-",
    "xoxp\\-(?<![A-Za-z0-9]xoxp\\-)[A-Za-z0-9-]{10,}"
  ],
  [
    "xoxr-",
    "xoxr\\-(?<![A-Za-z0-9]xoxr\\-)[A-Za-z0-9-]{10,}"
  ],
  [
    "xoxs-",
    "xoxs\\-(?<![A-Za-z0-9]xoxs\\-)[A-Za-z0-9-]{10,}"
  ],
  [
    "xapp-",
    "xapp\\-(?<![A-Za-z0-9]xapp\\-)[A-Za-z0-9-]{10,}"
  ],
  [
    "sk_live_",
    "sk_live_(?<![A-Za-z0-9]sk_live_)[A-Za-z0-9]{10,}"
  ],
  [
    "sk_test_",
    "sk_test_(?<![A-Za-z0-9]sk_test_)[A-Za-z0-9]{10,}"
  ],
  [
    "rk_live_",
    "rk_live_(?<![A-Za-z0-9]rk_live_)[A-Za-z0-9]{10,}"
  ],
  [
    "rk_test_",
    "rk_test_(?<![A-Za-z0-9]rk_test_)[A-Za-z0-9]{10,}"
  ],
  [
    "whsec_",
    "whsec_(?<![A-Za-z0-9]whsec_)[A-Za-z0-9+/=]{16,}"
  ],
  [
    "SG.",
    "SG\\.(?<![A-Za-z0-9]SG\\.)[A-Za-z0-9_-]{16,}\\.[A-Za-z0-9_-]{16,}"
  ],
  [
    "npm_",
    "npm_(?<![A-Za-z0-9]npm_)[A-Za-z0-9]{30,}"
  ],
  [
    "pypi-",
    "pypi\\-(?<![A-Za-z0-9]pypi\\-)[A-Za-z0-9_-]{40,}"
  ],
  [
    "dop_v1_",
    "dop_v1_(?<![A-Za-z0-9]dop_v1_)[a-f0-9]{40,}"
  ],
  [
    "doo_v1_",
    "doo_v1_(?<![A-Za-z0-9]doo_v1_)[a-f0-9]{40,}"
  ],
  [
    "dor_v1_",
    "dor_v1_(?<![A-Za-z0-9]dor_v1_)[a-f0-9]{40,}"
  ],
  [
    "shpat_",
    "shpat_(?<![A-Za-z0-9]shpat_)[a-fA-F0-9]{30,}"
  ],
  [
    "shpca_",
    "shpca_(?<![A-Za-z0-9]shpca_)[a-fA-F0-9]{30,}"
  ],
  [
    "shppa_",
    "shppa_(?<![A-Za-z0-9]shppa_)[a-fA-F0-9]{30,}"
  ],
  [
    "shpss_",
    "shpss_(?<![A-Za-z0-9]shpss_)[a-fA-F0-9]{30,}"
  ],
  [
    "hvs.",
    "hvs\\.(?<![A-Za-z0-9]hvs\\.)[A-Za-z0-9_-]{20,}"
  ],
  [
    "hvb.",
    "hvb\\.(?<![A-Za-z0-9]hvb\\.)[A-Za-z0-9_-]{20,}"
  ],
  [
    "hvr.",
    "hvr\\.(?<![A-Za-z0-9]hvr\\.)[A-Za-z0-9_-]{20,}"
  ],
  [
    "glsa_",
    "glsa_(?<![A-Za-z0-9]glsa_)[A-Za-z0-9_]{30,}"
  ],
  [
    "glc_",
    "glc_(?<![A-Za-z0-9]glc_)[A-Za-z0-9+/_-]{32,}={0,2}"
  ],
  [
    "dckr_pat_",
    "dckr_pat_(?<![A-Za-z0-9]dckr_pat_)[A-Za-z0-9_-]{20,}"
  ],
  [
    "dckr_oat_",
    "dckr_oat_(?<![A-Za-z0-9]dckr_oat_)[A-Za-z0-9_-]{20,}"
  ],
  [
    "HRKU-",
    "HRKU\\-(?<![A-Za-z0-9]HRKU\\-)[A-Za-z0-9_-]{30,}"
  ],
  [
    "NRAK-",
    "NRAK\\-(?<![A-Za-z0-9]NRAK\\-)[A-Za-z0-9]{20,}"
  ],
  [
    "sntrys_",
    "sntrys_(?<![A-Za-z0-9]sntrys_)[A-Za-z0-9+/=_-]{40,}"
  ],
  [
    "sntryu_",
    "sntryu_(?<![A-Za-z0-9]sntryu_)[a-f0-9]{40,}"
  ],
  [
    "dp.pt.",
    "dp\\.pt\\.(?<![A-Za-z0-9]dp\\.pt\\.)[A-Za-z0-9]{40,}"
  ],
  [
    "dp.st.",
    "dp\\.st\\.(?<![A-Za-z0-9]dp\\.st\\.)[A-Za-z0-9]{40,}"
  ],
  [
    "dp.ct.",
    "dp\\.ct\\.(?<![A-Za-z0-9]dp\\.ct\\.)[A-Za-z0-9]{40,}"
  ],
  [
    "dp.sa.",
    "dp\\.sa\\.(?<![A-Za-z0-9]dp\\.sa\\.)[A-Za-z0-9]{40,}"
  ],
  [
    "dp.scim.",
    "dp\\.scim\\.(?<![A-Za-z0-9]dp\\.scim\\.)[A-Za-z0-9]{40,}"
  ],
  [
    "dp.audit.",
    "dp\\.audit\\.(?<![A-Za-z0-9]dp\\.audit\\.)[A-Za-z0-9]{40,}"
  ],
  [
    "pscale_tkn_",
    "pscale_tkn_(?<![A-Za-z0-9]pscale_tkn_)[A-Za-z0-9_.=-]{32,}"
  ],
  [
    "pscale_pw_",
    "pscale_pw_(?<![A-Za-z0-9]pscale_pw_)[A-Za-z0-9_.=-]{32,}"
  ],
  [
    "pscale_oauth_",
    "pscale_oauth_(?<![A-Za-z0-9]pscale_oauth_)[A-Za-z0-9_.=-]{32,}"
  ],
  [
    "sbp_",
    "sbp_(?<![A-Za-z0-9]sbp_)[a-f0-9]{40,}"
  ],
  [
    "sb_secret_",
    "sb_secret_(?<![A-Za-z0-9]sb_secret_)[A-Za-z0-9_-]{20,}"
  ],
  [
    "rubygems_",
    "rubygems_(?<![A-Za-z0-9]rubygems_)[a-f0-9]{40,}"
  ],
  [
    "nvapi-",
    "nvapi\\-(?<![A-Za-z0-9]nvapi\\-)[A-Za-z0-9_-]{40,}"
  ],
  [
    "tgp_v1_",
    "tgp_v1_(?<![A-Za-z0-9]tgp_v1_)[A-Za-z0-9_-]{30,}"
  ],
  [
    "e2b_",
    "e2b_(?<![A-Za-z0-9]e2b_)[a-f0-9]{30,}"
  ],
  [
    "pcsk_",
    "pcsk_(?<![A-Za-z0-9]pcsk_)[A-Za-z0-9_]{40,}"
  ],
  [
    "fm2_",
    "fm2_(?<![A-Za-z0-9]fm2_)[A-Za-z0-9+/=_-]{40,}"
  ],
  [
    "cfut_",
    "cfut_(?<![A-Za-z0-9]cfut_)[A-Za-z0-9_-]{30,}"
  ],
  [
    "lin_api_",
    "lin_api_(?<![A-Za-z0-9]lin_api_)[A-Za-z0-9]{30,}"
  ],
  [
    "ntn_",
    "ntn_(?<![A-Za-z0-9]ntn_)[A-Za-z0-9]{30,}"
  ],
  [
    "figd_",
    "figd_(?<![A-Za-z0-9]figd_)[A-Za-z0-9_-]{30,}"
  ],
  [
    "PMAK-",
    "PMAK\\-(?<![A-Za-z0-9]PMAK\\-)[A-Za-z0-9-]{30,}"
  ],
  [
    "AGE-SECRET-KEY-",
    "AGE\\-SECRET\\-KEY\\-(?<![A-Za-z0-9]AGE\\-SECRET\\-KEY\\-)1[A-Z0-9]{40,}"
  ]
];

export const TEXT_FORMS: readonly { hint: string; pattern: string; instead: string }[] = [
  {
    "hint": "AIza",
    "pattern": "AIza(?<![A-Za-z0-9]AIza)[A-Za-z0-9_-]{30,}",
    "instead": "[redacted]"
  },
  {
    "hint": "AKIA",
    "pattern": "AKIA(?<![A-Za-z0-9]AKIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    "instead": "[redacted]"
  },
  {
    "hint": "ASIA",
    "pattern": "ASIA(?<![A-Za-z0-9]ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    "instead": "[redacted]"
  },
  {
    "hint": "dapi",
    "pattern": "dapi(?<![A-Za-z0-9]dapi)[a-f0-9]{32}(?![A-Za-z0-9])",
    "instead": "[redacted]"
  },
  {
    "hint": ".atlasv1.",
    "pattern": "[A-Za-z0-9]{14}\\.atlasv1\\.[A-Za-z0-9_-]{50,}",
    "instead": "[redacted]"
  },
  {
    "hint": "secret_",
    "pattern": "secret_(?<![A-Za-z0-9_-]secret_)[A-Za-z0-9]{43}(?![A-Za-z0-9])",
    "instead": "[redacted]"
  },
  {
    "hint": "key-",
    "pattern": "key\\-(?<![A-Za-z0-9_-]key\\-)[a-f0-9]{32}(?![A-Za-z0-9-])",
    "instead": "[redacted]"
  },
  {
    "hint": "fc-",
    "pattern": "fc\\-(?<![A-Za-z0-9_-]fc\\-)[a-f0-9]{32}(?![A-Za-z0-9-])",
    "instead": "[redacted]"
  },
  {
    "hint": "ATATT3x",
    "pattern": "ATATT3x(?<![A-Za-z0-9]ATATT3x)[A-Za-z0-9_=-]{40,}",
    "instead": "[redacted]"
  },
  {
    "hint": "ATBB",
    "pattern": "ATBB(?<![A-Za-z0-9]ATBB)[A-Za-z0-9]{28,40}(?![A-Za-z0-9])",
    "instead": "[redacted]"
  },
  {
    "hint": "1//0",
    "pattern": "1//0(?<![A-Za-z0-9]1//0)[A-Za-z0-9_-]{30,}",
    "instead": "[redacted]"
  },
  {
    "hint": "sig=",
    "pattern": "([?&]sig=)[A-Za-z0-9%+/_-]{32,}=*",
    "instead": "$1[redacted]"
  },
  {
    "hint": ":AA",
    "pattern": "(?<![0-9])\\d{8,10}:AA[A-Za-z0-9_-]{32,34}(?![A-Za-z0-9_-])",
    "instead": "[redacted]"
  },
  {
    "hint": "hooks.slack.com/",
    "pattern": "(hooks\\.slack\\.com/(?:services|workflows|triggers)/)[A-Za-z0-9/_-]{10,}",
    "instead": "$1[redacted]"
  },
  {
    "hint": "/webhooks/",
    "pattern": "(/api/webhooks/\\d+/)[A-Za-z0-9_-]{20,}",
    "instead": "$1[redacted]"
  },
  {
    "hint": "webhook.office.com/",
    "pattern": "(webhook\\.office\\.com/webhookb2/)[A-Za-z0-9@/_-]{10,}",
    "instead": "$1[redacted]"
  },
  {
    "hint": "PRIVATE KEY",
    "pattern": "-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:(?:[A-Za-z0-9+/=\\s:,.-]|\\\\+[nrt])*?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|(?:[A-Za-z0-9+/=\\s:,.-]|\\\\+[nrt])*)",
    "instead": "[redacted]"
  }
];

export const CREDENTIALS: readonly { hint: string; pattern: string; instead: string }[] = [
  {
    "hint": "://",
    "pattern": "(://[^\\s/:@\\\"'<>\\\\]{0,256}):[^\\s/\\\"'<>\\\\$\\[][^\\s/\\\"'<>\\\\]{0,255}@",
    "instead": "$1:[redacted]@"
  },
  {
    "hint": "earer ",
    "pattern": "([Bb]earer )\\s{0,8}(?=[A-Za-z._~+/-]*\\d)[A-Za-z0-9._~+/-]{12,}=*",
    "instead": "$1[redacted]"
  },
  {
    "hint": "asic ",
    "pattern": "(uthorization\\W{1,8}[Bb]asic )\\s{0,8}[A-Za-z0-9+/]{6,}=*",
    "instead": "$1[redacted]"
  }
];

export const NAMES: readonly (readonly [string, string, readonly string[]])[] = [
  [
    "pass",
    "words?|wd|phrase|code",
    []
  ],
  [
    "pwd",
    "",
    []
  ],
  [
    "secret",
    "s|[_-]?key|",
    []
  ],
  [
    "key",
    "s?",
    [
      "api",
      "api_",
      "api-",
      "api ",
      "access",
      "access_",
      "access-",
      "access ",
      "account",
      "account_",
      "account-",
      "account ",
      "private",
      "private_",
      "private-",
      "private ",
      "signing",
      "signing_",
      "signing-",
      "signing ",
      "encryption",
      "encryption_",
      "encryption-",
      "encryption ",
      "secret",
      "secret_",
      "secret-",
      "secret "
    ]
  ],
  [
    "authorization",
    "",
    []
  ],
  [
    "credential",
    "s?",
    []
  ],
  [
    "cookie",
    "",
    []
  ],
  [
    "bearer",
    "",
    []
  ],
  [
    "jwt",
    "",
    []
  ],
  [
    "token",
    "",
    []
  ]
];

export const NUMBERED: readonly string[] = [
  "pass",
  "pwd"
];

export const HARMLESS_TOKENS: readonly string[] = [
  "page",
  "next",
  "continuation",
  "cursor",
  "pad",
  "eos",
  "bos",
  "unk",
  "stop",
  "first",
  "last",
  "per",
  "max",
  "min",
  "sep",
  "mask",
  "cls",
  "special",
  "end",
  "start",
  "image",
  "sync",
  "delta"
];

export const PATTERNS = {
  "assigned": "(?<close>\\\\*[\\\"'])?(?<gap>[ \\t]{0,8})(?<sign>[:=])>?\\s{0,8}",
  "opening": "(\\\\*)([\\\"'])",
  "list": "\\[(?<value>[^\\[\\]{}]+)(?:\\]|$)",
  "number": "\\d[\\w.-]*",
  "bare": "[^\\s\\\"'&,;()\\[\\]{}<>$\\\\|`]+",
  "code": "(?:None|null|true|false|True|False)\\b|[A-Za-z_][\\w.]*[(\\[]|[A-Za-z_]\\w*\\.[A-Za-z_]",
  "scheme": "(?:bearer|basic|token|digest|apikey)[ \\t]{1,8}",
  "notASecret": "\\s*$|[*x.\\s]+$|\\[redacted\\]|<[^>]*>$|\\$\\{?\\w+\\}?$|\\{\\{?[^}]*\\}?\\}$|%\\w+%$",
  "keyHint": "[_.-](?=[A-Za-z0-9_+/-]{10})",
  "tokenHead": "(?<![A-Za-z0-9])eyJ(?=[A-Za-z0-9_-]{8})",
  "tokenTail": "\\.eyJ[A-Za-z0-9_-]{8,}(?:\\.[A-Za-z0-9_-]*)?"
} as const;

export const REDACTION = {
  "bareChars": 3,
  "examinedChars": 256,
  "levels": [
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    15,
    31,
    63
  ],
  "longestStart": 15
} as const;
