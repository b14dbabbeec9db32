//! The checks that tell cards and IBANs from other numbers.

/// True for 13 to 19 digits with a known issuer's prefix and a valid check digit.
pub(super) fn is_card(digits: &str) -> bool {
    (13..=19).contains(&digits.len()) && has_issuer(digits) && luhn(digits)
}

/// Prefixes and lengths of the issuers (ISO/IEC 7812 ranges as the networks publish them): Visa,
/// Mastercard, American Express, Diners Club, Discover, JCB, UnionPay, Maestro.
fn has_issuer(digits: &str) -> bool {
    let prefix = |len: usize| digits.get(..len).and_then(|p| p.parse::<u32>().ok()).unwrap_or(0);
    let length = digits.len();
    match prefix(2) {
        40..=49 => matches!(length, 13 | 16 | 18 | 19),
        51..=55 => length == 16,
        22..=27 => length == 16 && (2221..=2720).contains(&prefix(4)),
        34 | 37 => length == 15,
        30 => length >= 14 && matches!(prefix(3), 300..=305 | 309),
        36 | 38 | 39 => length >= 14,
        35 => length >= 16 && (3528..=3589).contains(&prefix(4)),
        60 | 62 | 64 | 65 => length >= 16,
        50 | 56..=59 | 61 | 63 | 66..=69 => length >= 13,
        _ => false,
    }
}

/// The Luhn check (ISO/IEC 7812-1, annex B).
fn luhn(digits: &str) -> bool {
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let weigh = |(index, byte): (usize, u8)| {
        let digit = u32::from(byte - b'0');
        if index % 2 == 1 { doubled(digit) } else { digit }
    };
    let sum: u32 = digits.bytes().rev().enumerate().map(weigh).sum();
    sum.is_multiple_of(10)
}

/// Countries with their IBAN's length, from the SWIFT IBAN registry.
const COUNTRIES: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 \
    CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 \
    HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 \
    ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 \
    SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30";

/// The length of an IBAN of the country with these two letters.
pub(super) fn iban_length(country: &str) -> Option<usize> {
    let country = country.to_ascii_uppercase();
    let entry = COUNTRIES.split_ascii_whitespace().find(|entry| entry.starts_with(&country))?;
    entry[2..].parse().ok()
}

/// True if `compact` (upper case, no separators) leaves 1 by 97 (ISO 13616, ISO 7064 MOD 97-10).
pub(super) fn is_iban(compact: &str) -> bool {
    let (head, tail) = compact.split_at(compact.len().min(4));
    let push = |rest: u32, c: char| match c.to_digit(36) {
        Some(digit) if digit < 10 => (rest * 10 + digit) % 97,
        Some(letter) => (rest * 100 + letter) % 97,
        None => 0,
    };
    tail.chars().chain(head.chars()).fold(0, push) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issuers_own_test_numbers_are_cards() {
        for card in [
            "4111111111111111",
            "4012888888881881",
            "5555555555554444",
            "2223003122003222",
            "378282246310005",
            "6011111111111117",
            "3530111333300000",
            "30569309025904",
            "4222222222222",
        ] {
            assert!(is_card(card), "{card}");
        }
        for other in ["4111111111111112", "1732400000000000", "1234567812345670", "411111111111"] {
            assert!(!is_card(other), "{other}");
        }
    }

    #[test]
    fn the_registrys_examples_are_ibans() {
        for iban in [
            "GB29NWBK60161331926819",
            "DE89370400440532013000",
            "FR1420041010050500013M02606",
            "NO9386011117947",
            "MT84MALT011000012345MTLCAST001S",
            "CH9300762011623852957",
        ] {
            assert_eq!(iban_length(&iban[..2]), Some(iban.len()), "{iban}");
            assert!(is_iban(iban), "{iban}");
        }
        assert!(!is_iban("GB29NWBK60161331926818"));
        assert_eq!(iban_length("US"), None);
    }
}
