//! The site's own clock, which may be wrong on purpose, and the ways the API writes a date.

use std::time::{SystemTime, UNIX_EPOCH};

/// A second of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(i64);

impl Moment {
    pub(super) const fn at(seconds: i64) -> Self {
        Self(seconds)
    }

    /// What the site's clock shows when it goes wrong by this much.
    pub(super) fn now(skew_seconds: i64) -> Self {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
            });
        Self(seconds.saturating_add(skew_seconds))
    }

    pub(super) const fn seconds(self) -> i64 {
        self.0
    }

    /// `2026-01-31T18:44:27Z`, as XML answers have it.
    pub(super) fn iso(self) -> String {
        let civil = Civil::of(self);
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second
        )
    }

    /// `Sat, 31 Jan 2026 18:44:27 GMT`, as headers, JSON and PHP answers have it.
    pub(super) fn rfc1123(self) -> String {
        let civil = Civil::of(self);
        format!(
            "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
            civil.weekday,
            civil.day,
            MONTHS[civil.month - 1],
            civil.year,
            civil.hour,
            civil.minute,
            civil.second
        )
    }

    /// `20260131184427`, as `edittime` and entity tags have it.
    pub(super) fn compact(self) -> String {
        let civil = Civil::of(self);
        format!(
            "{:04}{:02}{:02}{:02}{:02}{:02}",
            civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second
        )
    }
}

struct Civil {
    year: i64,
    month: usize,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    weekday: &'static str,
}

impl Civil {
    /// Days to a Gregorian date, by Howard Hinnant's `civil_from_days`: years begin in March, so
    /// that the leap day is the last of its year.
    fn of(moment: Moment) -> Self {
        let (days, rest) = (moment.0.div_euclid(86_400), moment.0.rem_euclid(86_400));
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        // The first of January 1970 was a Thursday.
        let weekday = usize::try_from((days + 4).rem_euclid(7)).unwrap_or(0);
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: usize::try_from(month).unwrap_or(1),
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            weekday: WEEKDAYS[weekday],
        }
    }
}

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_api_writes_them() {
        let seen = Moment::at(1_444_070_667);
        assert_eq!(seen.rfc1123(), "Mon, 05 Oct 2015 18:44:27 GMT");
        assert_eq!(seen.iso(), "2015-10-05T18:44:27Z");
        assert_eq!(seen.compact(), "20151005184427");
        assert_eq!(Moment::at(951_782_400).iso(), "2000-02-29T00:00:00Z");
        assert_eq!(Moment::at(0).rfc1123(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(Moment::at(-1).iso(), "1969-12-31T23:59:59Z");
    }
}
