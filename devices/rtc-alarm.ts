const DAY = 86_400;

/** What the alarm registers ask for; undefined is "don't care" (MC146818 datasheet, "Time, Calendar, and Alarm Locations"). */
export interface AlarmPattern {
  readonly hours: number | undefined;
  readonly minutes: number | undefined;
  readonly seconds: number | undefined;
}

/** Seconds from the given time of day to the next one that matches: 1 to 86,400. */
export function secondsToAlarm(pattern: AlarmPattern, hours: number, minutes: number, seconds: number): number {
  const now = hours * 3600 + minutes * 60 + seconds;
  let best = DAY;
  // Where a field does not matter, the next match has it at 0, as it is now, or one later.
  for (const hour of candidates(pattern.hours, hours, 24)) {
    for (const minute of candidates(pattern.minutes, minutes, 60)) {
      for (const second of candidates(pattern.seconds, seconds, 60)) {
        const away = (((hour * 3600 + minute * 60 + second - now - 1) % DAY) + DAY) % DAY;
        best = Math.min(best, away + 1);
      }
    }
  }
  return best;
}

function candidates(wanted: number | undefined, now: number, modulus: number): readonly number[] {
  return wanted === undefined ? [0, now, (now + 1) % modulus] : [wanted];
}
