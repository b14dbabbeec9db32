//! Credentials as their issuers write them: known by a prefix, or by a fixed part.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use regex::bytes::Regex;

/// Prefixes that only credentials have, by their issuers' documentation.
pub(super) const TOKENS: &[&str] = &[
    // OpenAI (sk-, sk-proj-, sk-svcacct-), Anthropic (sk-ant-), OpenRouter (sk-or-), LiteLLM.
    r"(?:\b|_)sk-[A-Za-z0-9_-]{16,}",
    r"sk-(?:proj|svcacct|admin|ant|or)-[A-Za-z0-9_-]{16,}",
    // Stripe and others that write an underscore.
    r"(?:\b|_)[sr]k_(?:live_|test_)?[A-Za-z0-9]{16,}",
    r"whsec_[A-Za-z0-9+/=]{16,}",
    // AWS: access key ids, Bedrock keys.
    r"(?:A3T[A-Z0-9]|AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{16}\b",
    r"ABSK[A-Za-z0-9+/=]{40,}",
    // GitHub, GitLab.
    r"gh[pousr]_[A-Za-z0-9]{20,}",
    r"github_pat_[A-Za-z0-9_]{20,}",
    r"gl(?:pat|dt|rt|ptt|cbt|soat)-[A-Za-z0-9_.-]{20,}",
    // Slack.
    r"xox[a-z][.-][A-Za-z0-9.-]{10,}",
    r"xapp-[A-Za-z0-9-]{10,}",
    r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{16,}",
    // Google: keys, access and refresh tokens, secrets of clients.
    r"AIza[A-Za-z0-9_-]{30,}",
    r"ya29\.[A-Za-z0-9_-]{20,}",
    r"\b1//0[A-Za-z0-9_-]{40,}",
    r"GOCSPX-[A-Za-z0-9_-]{20,}",
    // JSON Web Tokens, signed or encrypted, whole or cut after the first part's dot.
    r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,3}",
    // Microsoft Entra: secrets of clients, after three characters.
    r"[0-9]Q~[A-Za-z0-9_.~-]{30,}",
    // Models and what stands around them: Hugging Face, Groq, xAI, Perplexity, Replicate, NVIDIA, Fireworks,
    // Together, Cerebras, Voyage, Jina, Pinecone, Tavily, Firecrawl, LangSmith, Databricks.
    r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}",
    r"\bgsk_[A-Za-z0-9]{20,}",
    r"\bxai-[A-Za-z0-9]{20,}",
    r"\bpplx-[A-Za-z0-9]{20,}",
    r"\br8_[A-Za-z0-9]{20,}",
    r"\bnvapi-[A-Za-z0-9_-]{20,}",
    r"\bfw_[A-Za-z0-9]{20,}",
    r"\btgp_v1_[A-Za-z0-9_-]{20,}",
    r"\bcsk-[A-Za-z0-9]{20,}",
    r"\bpa-[A-Za-z0-9_-]{43}\b",
    r"\bjina_[A-Za-z0-9_-]{30,}",
    r"\bpcsk_[A-Za-z0-9_]{20,}",
    r"\btvly-(?:dev-|prod-)?[A-Za-z0-9]{20,}",
    r"\bfc-[a-f0-9]{32}\b",
    r"\blsv2_[a-z]{2}_[A-Za-z0-9_]{20,}",
    r"\bdapi[a-f0-9]{32}(?:-[0-9])?\b",
    // Packages and images: npm, PyPI, RubyGems, Docker.
    r"\bnpm_[A-Za-z0-9]{30,}",
    r"\bpypi-[A-Za-z0-9_-]{30,}",
    r"\brubygems_[a-f0-9]{48}\b",
    r"\bdckr_[a-z]{3}_[A-Za-z0-9_-]{20,}",
    // Mail and messages: SendGrid, Mailgun, Mailchimp, Brevo, Twilio, Telegram (after a bot's number), Discord.
    r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    r"\bkey-[a-f0-9]{32}\b",
    r"\b[a-f0-9]{32}-us[0-9]{1,2}\b",
    r"\bxkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}",
    r"\bSK[a-f0-9]{32}\b",
    r"[0-9]{8,10}:AA[A-Za-z0-9_-]{32,}",
    r"\b[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}",
    // Machines and what watches them: DigitalOcean, Vault, Terraform, Doppler, Grafana, New Relic, Sentry, Pulumi.
    r"\bdo[opr]_v1_[a-f0-9]{32,}",
    r"\bhv[sbr]\.[A-Za-z0-9_-]{20,}",
    r"\batlasv1\.[A-Za-z0-9_=-]{40,}",
    r"\bdp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9_.]{30,}",
    r"\bglsa_[A-Za-z0-9]{20,}_[a-f0-9]{8}\b",
    r"\bglc_[A-Za-z0-9+/=]{32,}",
    r"\bNR(?:AK|JS|II|IQ|RA)-[A-Za-z0-9_-]{20,}",
    r"\bsntry[su]_[A-Za-z0-9_+/=-]{30,}",
    r"\bpul-[a-f0-9]{40}\b",
    // Work: Atlassian, Linear, Notion, Figma, Postman, Shopify, Square, Facebook.
    r"\bAT(?:ATT3|CTT3|BB)[A-Za-z0-9_=-]{20,}",
    r"\blin_(?:api|oauth)_[A-Za-z0-9]{20,}",
    r"\b(?:ntn|secret)_[A-Za-z0-9]{40,}",
    r"\bfig[a-z]_[A-Za-z0-9_-]{30,}",
    r"\bPMAK-[a-f0-9]{24}-[a-f0-9]{34}\b",
    r"\bshp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}\b",
    r"\bsq0(?:atp|csp|idp)-[A-Za-z0-9_-]{20,}",
    r"\bEAA[A-Z][A-Za-z0-9_-]{56,}",
    // Databases: Supabase, PlanetScale.
    r"\bsb(?:p|_secret)_[A-Za-z0-9_-]{20,}",
    r"\bpscale_[a-z]{2,5}_[A-Za-z0-9_.=-]{30,}",
    // Where programs are built and run: GitLab's runners, CircleCI, Buildkite, Sonar, Artifactory, Clojars, Heroku,
    // Fly, Vercel, Netlify, Render, Tailscale, 1Password, Dynatrace, Infracost, Yandex, Alibaba, Tencent.
    r"\bGR1348941[A-Za-z0-9_-]{20,}",
    r"\bCCI[A-Z]{3}_[A-Za-z0-9]{20,}_[a-f0-9]{40}\b",
    r"\bbk[a-z]{2}_[a-f0-9]{40}\b",
    r"\bsq[pua]_[a-f0-9]{40}\b",
    r"\bAKCp[A-Za-z0-9]{60,}",
    r"\bcmVmdGtu[A-Za-z0-9]{50,}",
    r"\bCLOJARS_[a-z0-9]{50,}",
    r"\bHRKU-[A-Za-z0-9_-]{30,}",
    r"\bfm[12][ar]?_[A-Za-z0-9+/=_-]{40,}",
    r"\bvercel_[a-z_]{2,20}_[A-Za-z0-9_]{20,}",
    r"\bnf[pcoub]_[A-Za-z0-9]{30,}",
    r"\brnd_[A-Za-z0-9]{24,}",
    r"\btskey-[a-z]+-[A-Za-z0-9]+-[A-Za-z0-9]{16,}",
    r"\bops_eyJ[A-Za-z0-9+/=_-]{100,}",
    r"\bdt0[a-z][0-9]{2}\.[A-Z0-9]{24}\.[A-Z0-9]{40,}",
    r"\bico-[A-Za-z0-9]{32}\b",
    r"\bAQVN[A-Za-z0-9_-]{35,}",
    r"\bLTAI[A-Za-z0-9]{16,24}\b",
    r"\bAKID[A-Za-z0-9]{32,36}\b",
    // What pays, sends and sells: Razorpay, Flutterwave, Adyen, Duffel, Shippo, Lob, EasyPost, HubSpot, Typeform,
    // Contentful, ReadMe, Frame.io, Airtable, PubNub, Brave, Anyscale; addresses that are a key.
    r"\brzp_(?:live|test)_[A-Za-z0-9]{14,}",
    r"\bFLWSECK(?:_TEST)?-[A-Za-z0-9]{12,}-X",
    r"\bAQE[A-Za-z0-9]{5}hmf[A-Za-z0-9=+/-]{40,}",
    r"\b(?:duffel|shippo)_(?:live|test)_[A-Za-z0-9_=-]{40,}",
    r"\b(?:live|test)_[a-f0-9]{35}\b",
    r"\bEZ[AT]K[A-Za-z0-9]{50,}",
    r"\bpat-(?:na|eu|ap)[0-9]-[a-f0-9-]{36}",
    r"\btfp_[A-Za-z0-9_.=-]{50,}",
    r"\bCFPAT-[A-Za-z0-9_-]{40,}",
    r"\brdme_[a-z0-9]{60,}",
    r"\bfio-u-[A-Za-z0-9_=-]{60,}",
    r"\bpat[A-Za-z0-9]{14}\.[a-f0-9]{64}",
    r"\bsec-c-[A-Za-z0-9=+/-]{30,}",
    r"\bBSA[A-Za-z0-9_-]{28}\b",
    r"\besecret_[A-Za-z0-9]{20,}",
    r"discord(?:app)?\.com/api/webhooks/[0-9]{15,}/[A-Za-z0-9_-]{40,}",
    r"webhook\.office\.com/webhookb2/[A-Za-z0-9@/_-]{40,}",
    r"hooks\.zapier\.com/hooks/catch/[0-9]+/[A-Za-z0-9]+",
    // Hashes of passwords, and keys of age.
    r"2[aby]\$[0-9]{2}\$[A-Za-z0-9./]{50,}",
    r"\$(?:apr1|[156y]|argon2(?:id|i|d)|scrypt)\$(?:[A-Za-z0-9./=,+-]{1,40}\$){1,3}[A-Za-z0-9./+-]{20,}",
    r"AGE-SECRET-KEY-1[A-Z0-9]{20,}",
];

/// Microsoft's longer keys have a fixed part in the middle: of Azure AI, DevOps, Functions, Search, caches,
/// storage, databases, queues, devices.
pub(super) const FIXED_PARTS: &[&str] =
    &["JQQJ9", "AZDO", "AzFu", "AzSe", "AzCa", r"\+ASt", "ACDb", r"\+ASb", r"\+AEh", "AIoT"];

static FIXED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&FIXED_PARTS.join("|")).ok());
static WEB_TOKEN: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("eyJ"));

/// True where a key with a fixed part may stand.
pub(super) fn has_fixed_part(text: &[u8]) -> bool {
    FIXED.as_ref().is_some_and(|parts| parts.is_match(text))
}

/// Where JSON Web Tokens may begin.
pub(super) fn web_tokens(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    WEB_TOKEN.find_iter(text).map(|at| at..at + WEB_TOKEN.needle().len())
}

/// The shortest token of all but JSON's: `xoxb-` and ten characters.
pub(super) const TOKEN_BYTES_MIN: usize = 15;
/// Longer runs of letters alone are no words either.
const LETTERS_MIN: usize = 20;

/// True for a run of [`TOKEN_BYTES_MIN`] and more characters in which a token of [`TOKENS`] or a key in
/// hexadecimal digits or base64 could lie. Prose has none, and the largest of the patterns is spared.
pub(super) fn may_be_token(run: &[u8]) -> bool {
    run.len() >= LETTERS_MIN || !run.iter().all(u8::is_ascii_alphabetic)
}

/// True for a character that may stand in a token.
pub(super) fn is_token_sign(byte: u8) -> bool {
    PARTS[usize::from(byte)]
}

/// The characters of tokens.
const PARTS: [bool; 256] = {
    let mut parts = [false; 256];
    let mut byte = 0_u8;
    loop {
        let sign = matches!(byte, b'-' | b'_' | b'.' | b'+' | b'/' | b'=' | b'~');
        parts[byte as usize] = sign || byte.is_ascii_alphanumeric();
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    parts
};

#[cfg(test)]
mod tests {
    use super::super::find::Words;
    use super::*;

    #[test]
    fn no_token_is_overlooked_by_what_spares_the_patterns() {
        use proptest::strategy::{Strategy as _, ValueTree as _};
        use proptest::test_runner::TestRunner;
        let mut runner = TestRunner::deterministic();
        let has_token = |text: &str| {
            !Words::of(text.as_bytes()).tokens.is_empty()
                || web_tokens(text.as_bytes()).next().is_some()
        };
        let hex = "[0-9a-f]{32,64}";
        let base64 = "[A-Za-z0-9+/]{40,}={0,2}";
        for pattern in TOKENS.iter().copied().chain([hex, base64]) {
            let plain = pattern.replace(r"(?:\b|_)", "_?").replace(r"\b", "");
            let tokens = proptest::string::string_regex(&plain).expect("a pattern");
            for before in ["", " ", "x", "the key is: ", "a long sentence before the token, \""] {
                let token = tokens.new_tree(&mut runner).expect("a token").current();
                let text = format!("{before}{token} and more");
                assert!(has_token(&text), "{pattern}: {text}");
                assert!(has_token(&format!("{before}{token}")), "{pattern}: {text}");
            }
        }
        assert!(!has_token("An understandable sentence, with everything in it, has no token."));
    }
}
