//! Percent-encoding (RFC 3986).

use percent_encoding::percent_decode_str;

/// A part of a URL as it is meant; nothing where that is no text, or one that could end a line of a request.
pub fn decoded(part: &str) -> Option<String> {
    let text = percent_decode_str(part).decode_utf8().ok()?;
    (!text.chars().any(char::is_control)).then(|| text.into_owned())
}

/// Whether each `%` begins two digits; [`decoded`] leaves one as it is that does not.
pub fn is_well_encoded(part: &str) -> bool {
    let mut encoded = part.split('%').skip(1);
    encoded.all(|rest| {
        let digits = rest.bytes().take(2);
        digits.filter(u8::is_ascii_hexdigit).count() == 2
    })
}
