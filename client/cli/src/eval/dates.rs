//! Dates as days.

/// Days since 1 March of the year 0 of `YYYY-MM-DD`, `YYYY-MM` (its first day) or `YYYY` (its first day); `None` for
/// anything else. Proleptic Gregorian.
pub(super) fn days(text: &str) -> Option<f64> {
    let mut parts = text.split('-');
    let number = |part: Option<&str>, digits: usize| -> Option<Option<i64>> {
        match part {
            None => Some(None),
            Some(p) if p.len() == digits && p.bytes().all(|b| b.is_ascii_digit()) => Some(p.parse().ok()),
            Some(_) => None,
        }
    };
    let year = number(parts.next(), 4)??;
    let month = number(parts.next(), 2)?.unwrap_or(1);
    let day = number(parts.next(), 2)?.unwrap_or(1);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if parts.next().is_some() || !(1..=length).contains(&day) {
        return None;
    }
    // The year begins in March, so that a leap day is its last.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let before = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some((before + (153 * month + 2) / 5 + day - 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::days;

    #[test]
    fn days_between_dates() {
        let between = |a: &str, b: &str| days(b).unwrap() - days(a).unwrap();
        assert_eq!(between("1970-01-01", "2000-01-01"), 10_957.0);
        assert_eq!(between("2000-02-28", "2000-03-01"), 2.0);
        assert_eq!(between("1900-02-28", "1900-03-01"), 1.0);
        assert_eq!(between("2003", "2004"), 365.0);
        assert_eq!(between("2004", "2005-01"), 366.0);
        for bad in ["", "04", "2004-13", "2003-02-29", "2004-2-1", "2004-02-01-", "2004-02-00", "1.5", "-200"] {
            assert_eq!(days(bad), None, "{bad}");
        }
    }
}
