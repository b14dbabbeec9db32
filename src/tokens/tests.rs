//! Expected figures are OpenAI's own: those of its cookbook, and those of tiktoken's vocabulary.

use super::*;
use crate::domain::ChatTurn;

fn turn(role: &str, name: Option<&str>, text: &str) -> ChatTurn {
    ChatTurn { role: role.into(), name: name.map(str::to_owned), text: text.into() }
}

/// The cookbook's six messages.
fn cookbook() -> Countable {
    let (user, assistant) = (Some("example_user"), Some("example_assistant"));
    let turns = vec![
        turn(
            "system",
            None,
            "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
        ),
        turn("system", user, "New synergies will help drive top-line growth."),
        turn("system", assistant, "Things working well together will increase revenue."),
        turn(
            "system",
            user,
            "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
        ),
        turn("system", assistant, "Let's talk later when we're less busy about how to do better."),
        turn(
            "user",
            None,
            "This late pivot means we don't have time to boil the ocean for the client deliverable.",
        ),
    ];
    Countable { turns, ..Countable::default() }
}

/// The cookbook's weather tool with its two messages.
fn cookbook_tools() -> Countable {
    let tools = serde_json::json!([{"type": "function", "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {"type": "object", "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {"type": "string", "description": "The unit of temperature to return", "enum": ["celsius", "fahrenheit"]},
        }, "required": ["location"]},
    }}]);
    let turns = vec![
        turn(
            "system",
            None,
            "You are a helpful assistant that can answer to questions about the weather.",
        ),
        turn("user", None, "What's the weather like in San Francisco?"),
    ];
    Countable { turns, input: vec![tools.to_string()], ..Countable::default() }
}

fn count(model: Option<&str>, operation: Operation, texts: &Countable) -> Usage {
    Counting::Vocabularies.count(model, operation, texts)
}

fn chat(model: &str, texts: &Countable) -> Usage {
    count(Some(model), Operation::Chat, texts)
}

fn plain(model: &str, text: &str) -> u64 {
    let texts = Countable { input: vec![text.into()], ..Countable::default() };
    count(Some(model), Operation::TextCompletion, &texts).input.expect("text was given")
}

#[test]
fn without_memory_for_a_vocabulary_everything_is_estimated_by_its_bytes() {
    assert_eq!(Counting::within(None), Counting::Vocabularies);
    assert_eq!(Counting::within(Some(MEMORY_BYTES_MIN)), Counting::Vocabularies);
    let small = Counting::within(Some(64 << 20));
    assert_eq!(small, Counting::Estimate);
    let texts = Countable { output: vec!["x".repeat(400)], ..cookbook() };
    let usage = small.count(Some("gpt-4o"), Operation::Chat, &texts);
    assert_eq!((usage.source, usage.output), (Some(UsageSource::Estimated), Some(100)));
    assert!(usage.input.is_some_and(|input| (100..200).contains(&input)), "{usage:?}");
}

#[test]
fn chat_framing_gives_the_figures_of_the_cookbook() {
    let texts = cookbook();
    let cases = [
        ("gpt-4o", 124),
        ("gpt-4o-mini", 124),
        ("openai/gpt-4o", 124),
        ("gpt-4", 129),
        ("gpt-4-0613", 129),
        ("gpt-3.5-turbo", 129),
        ("gpt-35-turbo", 129),
        ("gpt-3.5-turbo-0301", 127),
    ];
    for (model, tokens) in cases {
        let usage = chat(model, &texts);
        assert_eq!(
            (usage.input, usage.source),
            (Some(tokens), Some(UsageSource::Counted)),
            "{model}"
        );
    }
}

#[test]
fn tools_give_the_figures_of_the_cookbook() {
    let texts = cookbook_tools();
    for (model, tokens) in
        [("gpt-4o", 101), ("gpt-4o-mini", 101), ("gpt-4", 105), ("gpt-3.5-turbo", 105)]
    {
        let usage = chat(model, &texts);
        assert_eq!(
            (usage.input, usage.source),
            (Some(tokens), Some(UsageSource::Counted)),
            "{model}"
        );
    }
}

#[test]
fn what_went_through_a_tokenizer_is_counted_and_hidden_reasoning_is_estimated() {
    let (counted, estimated) = (Some(UsageSource::Counted), Some(UsageSource::Estimated));
    assert_eq!(chat("gpt-4.1", &cookbook_tools()).source, counted);
    let texts = cookbook();
    assert_eq!(count(Some("claude-sonnet-4"), Operation::Messages, &texts).source, counted);
    for (model, source) in [
        ("smollm2", counted),
        ("gpt-6", counted),
        ("", counted),
        ("o3-mini", estimated),
        ("gpt-5", estimated),
    ] {
        let usage = chat(model, &texts);
        assert_eq!((usage.input, usage.source), (Some(124), source), "{model}: counted by o200k");
    }
    assert_eq!(count(None, Operation::Chat, &texts).source, counted);
}

#[test]
fn the_vocabulary_is_that_of_the_model() {
    // Figures of the cookbook, section 5.
    let texts = ["antidisestablishmentarianism", "2 + 2 = 4", "お誕生日おめでとう"];
    let cases = [
        ("gpt-4o-2024-05-13", [6, 7, 8]),
        ("gpt-4.1-mini", [6, 7, 8]),
        ("gpt-4-32k", [6, 7, 9]),
        ("text-embedding-3-small", [6, 7, 9]),
        ("GPT-35-Turbo-16k", [6, 7, 9]),
        ("text-davinci-003", [5, 5, 14]),
        ("davinci", [5, 5, 14]),
        ("ft:gpt-4o:org:name:id", [6, 7, 8]),
    ];
    for (model, tokens) in cases {
        assert_eq!(texts.map(|text| plain(model, text)), tokens, "{model}");
    }
}

#[test]
fn unknown_is_never_zero_and_nothing_generated_is() {
    let of = |texts: Countable| count(Some("gpt-4o"), Operation::Chat, &texts);
    let usage = of(Countable::default());
    assert_eq!((usage.input, usage.output, usage.total), (None, Some(0), None));
    let cut = of(Countable { output_truncated: true, ..Countable::default() });
    assert_eq!((cut, cut.source), (Usage::default(), None));
    let part = of(Countable {
        output: vec!["Hel".into(), "lo".into()],
        output_truncated: true,
        ..cookbook()
    });
    assert_eq!((part.input, part.source), (Some(124), Some(UsageSource::Estimated)));
    assert!(part.output.is_some_and(|tokens| tokens > 0));
    let request_cut = of(Countable { input_truncated: true, ..cookbook() });
    assert_eq!(request_cut.source, Some(UsageSource::Estimated));
}

#[test]
fn embeddings_have_input_only() {
    let texts = Countable { input: vec!["hello world".into()], ..Countable::default() };
    let usage = count(Some("text-embedding-3-small"), Operation::Embeddings, &texts);
    assert_eq!((usage.input, usage.output, usage.total), (Some(2), None, Some(2)));
    assert_eq!(usage.source, Some(UsageSource::Counted));
}

#[test]
fn over_the_cap_the_rest_is_estimated_by_the_part() {
    let text = "hello world ".repeat(100_000);
    let texts = Countable { input: vec![text], ..Countable::default() };
    let usage = count(Some("gpt-4o"), Operation::TextCompletion, &texts);
    let tokens = usage.input.expect("known");
    assert_eq!(usage.source, Some(UsageSource::Estimated));
    assert!((199_000..=202_000).contains(&tokens), "{tokens} for 200,001");
}

#[test]
fn an_exchange_is_counted_up_to_its_cap_however_many_texts_it_has() {
    let text = "word ".repeat(TEXT_BYTES_MAX / 5);
    let mut tally = Tally::new(Some(Encoding::O200k));
    tally.bytes_left = 10_000;
    let first = tally.text(&text);
    let second = tally.text(&text);
    assert_eq!((tally.bytes_left, tally.bytes_counted, tally.whole), (0, 10_000, false));
    assert!(first.abs_diff(second) < 10, "both at the same rate: {first}, {second}");
    let mut none = Tally::new(Some(Encoding::O200k));
    none.bytes_left = 0;
    assert_eq!((none.text("eight by"), none.whole), (2, false), "four bytes a token");
}

#[test]
fn a_cut_falls_on_a_character_and_special_tokens_are_text() {
    let odd = format!("a{}", "你".repeat(TEXT_BYTES_MAX));
    assert!(plain("gpt-4o", &odd) > 0);
    // 60,001 for ten thousand, in both vocabularies.
    let special = "<|endoftext|>".repeat(10_000);
    assert_eq!((plain("gpt-4o", &special), plain("gpt-4", &special)), (60_001, 60_001));
}

/// Strings on which tokenizers have been slow, wrong or gone.
fn adversarial() -> Vec<String> {
    let bytes = noise(20_000);
    let from =
        |set: &[u8]| bytes.iter().map(|b| set[*b as usize % set.len()] as char).collect::<String>();
    let cjk = |b: &u8| char::from_u32(0x4e00 + u32::from(*b) * 67).unwrap_or('你');
    let mut texts: Vec<String> = [
        "a",
        "A",
        "^",
        " ",
        "\n",
        "0",
        "aA",
        "a ",
        " \r\n",
        "e\u{301}",
        "\u{200d}👩‍👩‍👧",
        "<|endoftext|>",
        "\u{a0}",
        "\u{3000}x",
        "'S",
        "'ſt",
        "I'LL we'Ve ",
    ]
    .map(|unit| unit.repeat(20_000 / unit.len()))
    .to_vec();
    texts.extend([
        from(b"!@#$%^&*()_+-=[]{}|;:,.<>?/~`"),
        from(b"abcdefghijklmnopqrstuvwxyz"),
        from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"),
        from(b" \t\n\r"),
        from(b"ab \n'"),
        bytes[..6_000].iter().map(cjk).collect(),
        format!("{}x", " ".repeat(20_000)),
        String::from_utf8_lossy(&bytes).into_owned(),
        include_str!("mod.rs").into(),
        "Hello, world! It's 12345.67 o'clock — naïve café; Straße ÄÖÜ ١٢٣ Ⅷ ½ 👍🏽.\t\n\n  end  "
            .into(),
        "def f(x):\n    return {'a': [1, 2, 3]}\n\n\nSELECT * FROM t WHERE x >= 1;\r\n".into(),
        String::new(),
    ]);
    texts
}

/// Seeded bytes, the same in every run (xorshift64*).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn both_crates_count_the_same() {
    let pairs = [
        (Encoding::O200k, tiktoken_rs::o200k_base_singleton()),
        (Encoding::Cl100k, tiktoken_rs::cl100k_base_singleton()),
    ];
    for text in adversarial() {
        for (encoding, other) in pairs {
            let expected = other.encode_ordinary(&text).len() as u64;
            let start: String = text.chars().take(12).collect();
            assert_eq!(encoding.count(&text), Some((expected, true)), "{encoding:?} {start:?}");
        }
    }
}

#[test]
fn rare_vocabularies_are_counted_in_pieces_without_a_difference() {
    let prose = include_str!("mod.rs").replace('\n', " ").repeat(8);
    let prose = prose.split_whitespace().collect::<Vec<_>>().join(" ");
    for (encoding, whole) in [
        (Encoding::P50k, tiktoken_rs::p50k_base_singleton()),
        (Encoding::R50k, tiktoken_rs::r50k_base_singleton()),
    ] {
        assert!(prose.len() > 32 * 1024, "more than two pieces");
        let expected = whole.encode_ordinary(&prose).len() as u64;
        assert_eq!(encoding.count(&prose), Some((expected, true)));
        let spaces = encoding.count(&" ".repeat(TEXT_BYTES_MAX)).expect("no panic");
        assert!(!spaces.1, "cut inside a run: an estimate");
    }
}
