//! Days of the calendar: when something is to be replaced.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    year: u32,
    month: u32,
    day: u32,
}

/// From so many days before the day on, the operator is told.
const NOTICE_DAYS: i64 = 21;

impl Date {
    /// Reads `2027-01-31`; `None` for a day that there is not.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str, digits: usize| {
            let is_number = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| text.parse().ok()).flatten()
        };
        let mut parts = text.split('-');
        let date = Self {
            year: number(parts.next()?, 4)?,
            month: number(parts.next()?, 2)?,
            day: number(parts.next()?, 2)?,
        };
        let is_day =
            (1..=12).contains(&date.month) && (1..=date.days_of_month()).contains(&date.day);
        (parts.next().is_none() && is_day).then_some(date)
    }

    /// What the operator should know of keys that are to be replaced by this day.
    pub(super) fn warning(self, today: i64) -> Option<String> {
        match self.days() - today {
            ..0 => Some(format!(
                "these keys were to be replaced by {self}; make a new one with countersign key new, list it beside the old one until the caller has changed, then remove the old one"
            )),
            0..=NOTICE_DAYS => Some(format!(
                "these keys are to be replaced by {self}; make a new one with countersign key new, and list it beside the old one until the caller has changed"
            )),
            _ => None,
        }
    }

    fn days_of_month(self) -> u32 {
        match self.month {
            2 if self.is_leap_year() => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    fn is_leap_year(self) -> bool {
        self.year.is_multiple_of(4) && !self.year.is_multiple_of(100)
            || self.year.is_multiple_of(400)
    }

    /// Days since 1970-01-01.
    fn days(self) -> i64 {
        // With years that begin in March, a leap day is the last one, and the days before a month are
        // 30.6 times the months, rounded.
        let (month, year) = match self.month {
            1 | 2 => (self.month + 9, i64::from(self.year) - 1),
            month => (month - 3, i64::from(self.year)),
        };
        let days_before_month = i64::from((153 * month + 2) / 5);
        let days_before_year =
            365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        days_before_year + days_before_month + i64::from(self.day) - 719_469
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// Days since 1970-01-01, in UTC.
pub(super) fn today() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map(|passed| passed.as_secs()).unwrap_or_default();
    i64::try_from(seconds / 86_400).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_calendar() {
        let check = |text: &str, expected: Option<i64>| {
            let date = Date::parse(text);
            assert_eq!(date.map(Date::days), expected, "{text}");
            if let Some(date) = date {
                assert_eq!(date.to_string(), text);
            }
        };
        check("1970-01-01", Some(0));
        check("1969-12-31", Some(-1));
        check("1970-03-01", Some(59));
        check("2000-02-29", Some(11_016));
        check("2000-03-01", Some(11_017));
        check("2024-12-31", Some(20_088));
        check("2027-01-31", Some(20_849));
        check("2100-03-01", Some(47_541));
        check("9999-12-31", Some(2_932_896));
        for text in [
            "",
            "2027-1-31",
            "2027-01-32",
            "2027-02-29",
            "2100-02-29",
            "2027-13-01",
            "2027-00-10",
            "2027-01-00",
            "27-01-31",
            "2027/01/31",
            "2027-01-31T00:00:00Z",
            "31-01-2027",
            "+027-01-31",
            "2027-01-31-1",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn three_weeks_of_notice() {
        let date = Date::parse("2027-01-31").unwrap();
        let check = |days_before: i64, expected: Option<&str>| {
            let warning = date.warning(date.days() - days_before);
            let begins = warning.as_deref().map(|text| &text[..25]);
            assert_eq!(begins, expected, "{days_before} days before");
        };
        check(400, None);
        check(22, None);
        check(21, Some("these keys are to be repl"));
        check(0, Some("these keys are to be repl"));
        check(-1, Some("these keys were to be rep"));
        check(-400, Some("these keys were to be rep"));
    }
}
