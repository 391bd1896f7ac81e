//! Values of the command line, checked before anything is asked of the gateway.

use std::time::Duration;

use dialhome_proto::id::is_name;
use dialhome_proto::statement::is_endpoint;

use crate::image::name::ImageName;

/// A device's id, or a product.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.into())
    } else {
        Err("use 1 to 64 letters, digits, _ and -".into())
    }
}

/// HOST:PORT.
pub(crate) fn gateway(text: &str) -> Result<String, String> {
    if is_endpoint(text) {
        Ok(text.into())
    } else {
        Err("write HOST:PORT, an IPv6 address in brackets".into())
    }
}

/// `P[/component]@V`, as the gateway writes it.
pub(crate) fn image(text: &str) -> Result<String, String> {
    text.parse::<ImageName>()
        .map(|name| name.to_string())
        .map_err(|error| error.to_string())
}

/// `30s`, `5m`, `2h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and s, m, h or d, as in 30s, 5m, 2h or 7d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number = &text[..text.len() - 1];
    if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(0) => Err("it must be longer than nothing".into()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err("it is too long".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in [
            "",
            "s",
            "5",
            "-5s",
            "+5s",
            "5 s",
            "0s",
            "1.5h",
            "5w",
            "5é",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
