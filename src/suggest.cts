/** Finds the name that somebody meant. */

/** A name that differs in more letters than this is another word. */
const MAX_DISTANCE = 3;

/**
 * @returns `; did you mean 'maxBodySize'?` when one of the names is close, else an empty string
 */
export function didYouMean(unknown: string, names: readonly string[]): string {
  const meant = closest(unknown, names);
  return meant === undefined ? '' : `; did you mean '${meant}'?`;
}

/** The name that resembles a word most, whatever case it is in; undefined when none does. */
export function closest(word: string, names: readonly string[], maxDistance = MAX_DISTANCE): string | undefined {
  let best: string | undefined;
  let bestDistance = maxDistance + 1;
  for (const name of names) {
    const distance = editDistance(word.toLowerCase(), name.toLowerCase());
    // Half of a short name's letters may be wrong before it is another name.
    if (distance < bestDistance && distance <= name.length / 2) {
      best = name;
      bestDistance = distance;
    }
  }
  return best;
}

/** How many letters have to be added, removed or changed to get from one word to the other (Levenshtein). */
function editDistance(from: string, to: string): number {
  if (Math.abs(from.length - to.length) > MAX_DISTANCE) return MAX_DISTANCE + 1;
  let previous = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i += 1) {
    const current = [i];
    for (let j = 1; j <= to.length; j += 1) {
      const change = (previous[j - 1] as number) + (from[i - 1] === to[j - 1] ? 0 : 1);
      const addOrRemove = Math.min(previous[j] as number, current[j - 1] as number) + 1;
      current.push(Math.min(change, addOrRemove));
    }
    previous = current;
  }
  return previous[to.length] as number;
}
