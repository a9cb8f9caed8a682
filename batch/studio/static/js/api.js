// Asks the studio's own endpoints and the API, which share an origin.

/** What the server refused, or that it could not be asked. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let adminKey = "";
let apiKey = "";

/** Keeps the admin key in this page's memory; it is gone with the page. */
export function setAdminKey(key) {
  adminKey = key;
}

/** Keeps a key for the API's callers, likewise. */
export function setApiKey(key) {
  apiKey = key;
}

/** Tells whether an admin key was given. */
export const hasAdminKey = () => adminKey !== "";

/** The path with parameters; null, undefined and "" are left out, lists are repeated. */
export function address(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") query.append(name, each);
    }
  }
  return query.size ? `${path}?${query}` : path;
}

/** JSON by GET. */
export const get = (path, parameters, options = {}) =>
  ask(address(path, parameters), { method: "GET", ...options });

/** JSON by GET from the studio's own endpoints: studio("user", {id}). */
export const studio = (name, parameters, options) =>
  get(`/studio/api/${name}`, parameters, options);

/** JSON by POST or another method with a body; `admin: true` sends the admin key. */
export const send = (path, body, { method = "POST", ...options } = {}) =>
  ask(path, {
    method,
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
    ...options,
  });

/** The text of a path, such as /metrics. */
export const text = async (path) => (await answered(path, { method: "GET" })).text();

async function ask(path, options) {
  const answer = await answered(path, options);
  return answer.status === 204 ? null : answer.json();
}

async function answered(path, { admin = false, headers = {}, ...options }) {
  // Beyond loopback the studio's own endpoints need the admin key, too.
  const asAdmin = adminKey && (admin || path.startsWith("/studio/api/"));
  const sent = {
    ...headers,
    "x-shortlist-preview": "1", // no user sees these answers: they count as no impressions
    ...(asAdmin && { "x-shortlist-admin-key": adminKey }),
    ...(apiKey && { "x-api-key": apiKey }),
  };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: sent });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(
      0, "unreachable",
      "The studio's server does not answer: see whether `shortlist studio` or `shortlist serve` "
        + "still runs, then try again.",
    );
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  const body = await answer.json().catch(() => null);
  const { code = "error", message } = body?.error ?? {};
  return new ApiError(
    answer.status, code, message ?? `The server answered with status ${answer.status}.`,
  );
}

/** Runs only the latest of many requests: an earlier one that still runs is given up. */
export function latest() {
  let running = null;
  return async (work) => {
    running?.abort();
    const mine = new AbortController();
    running = mine;
    try {
      const value = await work(mine.signal);
      return mine.signal.aborted ? undefined : value;
    } catch (error) {
      if (mine.signal.aborted) return undefined;
      throw error;
    }
  };
}
