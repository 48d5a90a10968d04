use proptest::prelude::*;

use super::*;
use crate::campaign::testing;

fn json(id: &str, priority: i32) -> Vec<u8> {
    format!(r#"{{"action":{{"type":"alert"}},"id":"{id}","priority":{priority},"trigger":["purchase"]}}"#)
        .into_bytes()
}

fn put(live: &mut LiveCampaigns, id: &str, priority: i32, offset: i64) -> Result<Change, RejectedRecord> {
    live.apply(campaign_key(id).as_bytes(), Some(&json(id, priority)), offset)
}

#[test]
fn records_fold_into_a_set_with_offsets_as_versions() {
    let mut live = LiveCampaigns::default();
    assert_eq!(live.snapshot().position(), -1);
    assert_eq!(put(&mut live, "a", 1, 0), Ok(Change::Campaign("a".into())));
    assert_eq!(put(&mut live, "b", 2, 4), Ok(Change::Campaign("b".into())));
    let catalog = br#"{"allowed_lateness":"2h"}"#;
    assert_eq!(live.apply(b"catalog", Some(catalog), 5), Ok(Change::Catalog));
    let before = live.snapshot();
    assert_eq!(put(&mut live, "a", 3, 6), Ok(Change::Campaign("a".into())));
    assert_eq!(live.apply(b"campaign:b", None, 7), Ok(Change::CampaignRemoved("b".into())));
    assert_eq!(live.apply(b"campaign:b", None, 8), Ok(Change::Nothing));
    assert_eq!(live.apply(b"catalog", None, 9), Ok(Change::CatalogRemoved));

    let versions = |set: &CampaignSet| -> Vec<(String, i64)> {
        set.candidates("purchase").iter().map(|live| (live.campaign.id.clone(), live.version)).collect()
    };
    // A set that was taken does not change.
    assert_eq!(versions(&before), [("b".to_owned(), 4), ("a".to_owned(), 0)]);
    assert_eq!((before.position(), before.catalog().allowed_lateness_ms), (5, 7_200_000));
    let after = live.snapshot();
    assert_eq!(versions(&after), [("a".to_owned(), 6)]);
    assert_eq!((after.position(), after.catalog().allowed_lateness_ms), (9, 3_600_000));
}

#[test]
fn a_bad_record_keeps_the_last_good_one_and_is_listed_until_replaced() {
    let mut live = LiveCampaigns::default();
    put(&mut live, "a", 1, 0).unwrap();
    let rejected = live.apply(b"campaign:a", Some(br#"{"id":"a","#), 1).unwrap_err();
    assert_eq!((rejected.key.as_str(), rejected.offset), ("campaign:a", 1));
    assert_eq!(live.snapshot().campaign("a").unwrap().version, 0);
    assert_eq!(live.snapshot().position(), 1);
    assert_eq!(live.rejected().count(), 1);

    put(&mut live, "a", 2, 2).unwrap();
    assert_eq!(live.rejected().count(), 0);
    assert_eq!(live.rejected_total(), 1);
    assert_eq!(live.snapshot().campaign("a").unwrap().version, 2);

    live.apply(b"catalog", Some(br#"{"allowed_lateness":"5m"}"#), 3).unwrap();
    live.apply(b"catalog", Some(br#"{"allowed_lateness":5}"#), 4).unwrap_err();
    assert_eq!(live.snapshot().catalog().allowed_lateness_ms, 300_000);
}

#[test]
fn every_unusable_record_says_why() {
    for (key, value, why) in [
        (&b"campaign:a"[..], &json("b", 1)[..], "the value is the campaign `b`"),
        (b"campaign:", &json("a", 1), "the key is none of"),
        (b"campaigns:a", &json("a", 1), "the key is none of"),
        (b"", &json("a", 1), "the key is none of"),
        (b"\xff", &json("a", 1), "not UTF-8"),
        (b"campaign:a", b"[]", "a mapping is wanted here"),
        (b"campaign:a", b"\xff\xfe", "not well-formed JSON"),
        (b"campaign:a", br#"{"id":"a","trigger":["x"],"action":{"type":"alert"},"holdout":"5%"}"#, "holdout"),
    ] {
        let rejected = LiveCampaigns::default().apply(key, Some(value), 0).unwrap_err();
        assert!(rejected.error.contains(why), "{rejected}");
    }
}

#[test]
fn control_records_are_kept_as_they_are() {
    let mut live = LiveCampaigns::default();
    assert_eq!(live.apply(b"control:scale", Some(b"{}"), 0), Ok(Change::Control("scale".into())));
    assert_eq!(live.control("scale"), Some(&b"{}"[..]));
    assert_eq!(live.apply(b"control:scale", None, 1), Ok(Change::Control("scale".into())));
    assert_eq!(live.control("scale"), None);
}

#[test]
fn rejected_records_are_bounded_but_all_counted() {
    let mut live = LiveCampaigns::default();
    for offset in 0..1_500 {
        let key = format!("campaign:{offset}{}", "x".repeat(1_000));
        let rejected = live.apply(key.as_bytes(), Some(b"nonsense"), offset).unwrap_err();
        assert!(rejected.key.chars().count() <= MAX_TEXT_CHARS);
    }
    assert_eq!(live.rejected().count(), MAX_REJECTED);
    assert_eq!(live.rejected_total(), 1_500);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(key in prop::collection::vec(any::<u8>(), 0..20), value in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut live = LiveCampaigns::default();
        let _ = live.apply(&key, Some(&value), 0);
        let _ = live.apply(b"campaign:a", Some(&value), 1);
        prop_assert_eq!(live.position(), 1);
    }

    /// Reading a stretch of the log again, as after a reconnect, changes nothing: neither definitions nor the position.
    #[test]
    fn reading_again_changes_nothing(
        campaigns in prop::collection::vec((testing::campaign(), any::<bool>()), 2..12),
        again in (0usize..12, 1usize..12),
    ) {
        let records: Vec<(String, Option<String>)> = campaigns
            .iter()
            .map(|(campaign, dead)| (campaign_key(&campaign.id), (!dead).then(|| campaign.to_canonical_json())))
            .collect();
        let mut live = LiveCampaigns::default();
        let feed = |live: &mut LiveCampaigns, from: usize, count: usize| {
            for (offset, (key, value)) in records.iter().enumerate().skip(from).take(count) {
                live.apply(key.as_bytes(), value.as_deref().map(str::as_bytes), offset as i64).unwrap();
            }
        };
        feed(&mut live, 0, records.len());
        let once = live.snapshot();
        feed(&mut live, again.0, again.1);
        prop_assert_eq!(once, live.snapshot());
    }
}
