//! Settings and statistics, as JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use syncbn::BatchNormConfig;
use syncbn::config::RunningVariance;
use syncbn::low_level::settings_manifest;
use syncbn::stats::{GlobalStatistics, LocalStatistics, RunningStats};

use crate::memory::bounded;

/// A value of JSON, and the value of the JSON that is made of it.
fn twice<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<(T, T)> {
    // Unknown fields become a message of all the names that are known.
    let value: T = bounded(bytes, 64, |bytes| serde_json::from_slice(bytes)).ok()?;
    let json = serde_json::to_vec(&value).expect("JSON of any value");
    // JSON has no infinity, which a number too large for f32 becomes: `null` stands in its place.
    let again = serde_json::from_slice(&json).ok()?;
    Some((value, again))
}

/// Settings that are valid come back as they were, and everything that reads them takes them.
pub fn config(bytes: &[u8]) {
    let Some((config, again)) = twice::<BatchNormConfig>(bytes) else {
        let value = serde_json::from_slice::<BatchNormConfig>(bytes);
        assert!(value.is_err() || value.is_ok_and(|config| config.validate().is_err()));
        return;
    };
    assert_eq!(again, config);
    let manifest = settings_manifest(&config);
    assert_eq!(manifest.text, settings_manifest(&again).text);
    let _ = config.validate();
}

/// Statistics of any numbers are merged without a panic, and refused where channels are missing.
pub fn statistics(bytes: &[u8]) {
    if let Some((local, again)) = twice::<LocalStatistics>(bytes) {
        assert_eq!(again, local);
        let mut merged = local.clone();
        let result = merged.merge(&local);
        assert!(result.is_ok() || merged == local, "a merge that is refused changes nothing");
        let mut appended = local.clone();
        if appended.append(again).is_ok() {
            assert_eq!(appended.ranks().len(), 2 * local.ranks().len());
        }
    }
    if let Some((global, again)) = twice::<GlobalStatistics>(bytes) {
        assert_eq!(again, global);
        let channels = global.channels().len();
        assert_eq!(global.inv_std(1e-5).len(), channels);
        for form in [RunningVariance::Unbiased, RunningVariance::Biased] {
            assert_eq!(global.to_running(form).var.len(), channels);
        }
    }
    if let Some((running, again)) = twice::<RunningStats>(bytes) {
        assert_eq!(again, running);
    }
}
