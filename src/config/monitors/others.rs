//! `monitors[].signals.generation_quality.limits`: limits of computed criteria and of the user's own.

use super::super::fault::{Complaint, Report, nearest};
use super::super::judge::Evaluate;
use super::super::map::Map;
use super::super::show::Shown;
use super::{Monitor, OtherLimit};
use crate::domain::{Bound, Criterion, Scale, Yardstick};

/// Builds one; `None` after a fault.
pub(super) fn build(map: &Map, report: &mut Report) -> Option<OtherLimit> {
    let name = map.text("criterion")?;
    if Criterion::named(name).is_some_and(|known| Criterion::RATED.contains(&known)) {
        let message = format!("`{}` is `{name}`", map.path_of("criterion"));
        let allowed =
            "a computed or a custom criterion; `average` and `pass_rate` are for the others";
        report.fault(map.origin("criterion"), Complaint::new(message).allowed(allowed));
        return None;
    }
    let scale = match map.text("scale") {
        Some("boolean") => Scale::Boolean,
        _ => Scale::Score,
    };
    let by = Yardstick::named(name, scale);
    one_side(map, report);
    let (lowest, highest) = match by.scale {
        Scale::Score => (1.0, 5.0),
        Scale::Ratio | Scale::Boolean => (0.0, 1.0),
    };
    for key in ["at_least", "at_most"] {
        if let Some(limit) = map.number(key).filter(|limit| !(lowest..=highest).contains(limit)) {
            let message = format!("`{}` is {limit}", map.path_of(key));
            let allowed = format!("{lowest} to {highest}, the scale of `{name}`");
            report.fault(map.origin(key), Complaint::new(message).allowed(allowed));
        }
    }
    let pass_rate = map.number("pass_rate");
    if pass_rate.is_some() && by.scale != Scale::Score {
        let message = format!("`{}` is given for `{name}`", map.path_of("pass_rate"));
        let allowed = "`at_least` or `at_most`: only scores from 1 to 5 pass";
        report.fault(map.origin("pass_rate"), Complaint::new(message).allowed(allowed));
    }
    let least = map.number("at_least").map(|limit| (Bound::AtLeast, limit));
    let average = least.or(map.number("at_most").map(|limit| (Bound::AtMost, limit)));
    Some(OtherLimit { by, average, pass_rate })
}

fn one_side(map: &Map, report: &mut Report) {
    let given = |name: &&str| map.given(name);
    let given: Vec<&str> = ["at_least", "at_most", "pass_rate"].into_iter().filter(given).collect();
    let told = match given.as_slice() {
        [] => "no limit",
        ["at_least", "at_most", ..] => "both `at_least` and `at_most`",
        _ => return,
    };
    let message = format!("`{}` has {told}", map.path_of("criterion"));
    let allowed = "`at_least` or `at_most`, and `pass_rate` for scores from 1 to 5";
    report.fault(map.origin("criterion"), Complaint::new(message).allowed(allowed));
}

/// Reports limits of custom criteria that this configuration has, but not so. Where it has none,
/// another process may judge by them.
pub(in crate::config) fn known(
    maps: &[Map],
    monitors: Option<&[Monitor]>,
    evaluate: Option<&Evaluate>,
    report: &mut Report,
) {
    let judging = evaluate.filter(|evaluate| !evaluate.custom.is_empty());
    let (Some(evaluate), Some(monitors)) = (judging, monitors) else { return };
    let limits = monitors.iter().filter_map(|monitor| monitor.quality.as_ref());
    let limits: Vec<_> = limits.flat_map(|quality| &quality.others).collect();
    for limit in limits.into_iter().filter(|limit| limit.by.name.is_some()) {
        let name = limit.by.label();
        let custom = evaluate.custom.iter().find(|custom| &*custom.name == name);
        let Some(origin) = written(maps, name) else { continue };
        let (message, allowed) = match custom {
            Some(custom) if custom.scale() == limit.by.scale => continue,
            Some(custom) => (
                format!("the limit of `{name}` has the scale `{}`", limit.by.scale.label()),
                format!("`scale: {}`, as `evaluate.custom` has it", custom.scale().label()),
            ),
            None => (
                format!("the limit of `{name}` is of no criterion"),
                "a computed criterion, or one of `evaluate.custom`".to_owned(),
            ),
        };
        let near = nearest(
            name,
            Criterion::COMPUTED
                .iter()
                .map(|of| of.label())
                .chain(evaluate.custom.iter().map(|custom| &*custom.name)),
        );
        let near = near.map(str::to_owned).filter(|near| near != name);
        report.fault(origin, Complaint::new(message).allowed(allowed).nearest(near));
    }
}

/// Where the limit of this criterion is written.
fn written<'a>(maps: &'a [Map], name: &str) -> Option<&'a super::super::node::Origin> {
    let quality = maps.iter().filter_map(|map| map.map("signals")?.map("generation_quality"));
    let mut limits = quality.flat_map(|quality| quality.maps("limits"));
    limits
        .find(|limit| limit.text("criterion") == Some(name))
        .map(|limit| limit.origin("criterion"))
}

/// One as YAML.
pub(super) fn show(limit: &OtherLimit) -> Vec<(&'static str, Shown)> {
    let of = |wanted: Bound| limit.average.filter(|(bound, _)| *bound == wanted).map(|(_, at)| at);
    let scale = limit.by.name.as_ref().map(|_| limit.by.scale.label());
    vec![
        ("criterion", Shown::text(limit.by.label())),
        ("scale", Shown::text(scale.unwrap_or(Scale::Score.label()))),
        ("at_least", Shown::optional(of(Bound::AtLeast))),
        ("at_most", Shown::optional(of(Bound::AtMost))),
        ("pass_rate", Shown::optional(limit.pass_rate)),
    ]
}
