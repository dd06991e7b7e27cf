//! Sensors of a machine that are read while it works: power rails, temperatures, clocks, throttling.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::tree::Tree;

/// The sensors of a machine, found once and then read as often as wanted.
#[derive(Debug)]
pub struct Sensors {
    rails: Vec<Rail>,
    zones: Vec<Sensor>,
    clocks: Vec<Sensor>,
    throttling: Vec<Sensor>,
}

/// A monitored power rail.
#[derive(Debug)]
struct Rail {
    /// Microwatts as INA238 reports them, or millivolts and milliamperes as INA3221 does.
    sensor: Sensor,
    in_total: bool,
}

/// Files with one number each. Their product in `unit` is the sensor's value.
#[derive(Debug)]
struct Sensor {
    name: String,
    files: Vec<PathBuf>,
    unit: f64,
}

/// The names of what [`Sensors::read`] gives values of, in the same order.
#[derive(Debug, Clone, Serialize)]
pub struct SensorNames {
    /// Power rails.
    pub rails: Vec<String>,
    /// Of those, the rails that add up to what the module takes in.
    pub total: Vec<String>,
    /// Thermal zones.
    pub zones: Vec<String>,
    /// Clocks of CPU clusters, GPU and memory.
    pub clocks: Vec<String>,
}

/// One reading of all sensors. What could not be read, such as the temperature of a part that is switched off, is
/// missing.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// W on each rail.
    pub rails: Vec<Option<f64>>,
    /// W of all the rails of [`SensorNames::total`]; missing unless every one of them was read.
    pub total: Option<f64>,
    /// °C of each thermal zone.
    pub zones: Vec<Option<f64>>,
    /// Hz of each clock.
    pub clocks: Vec<Option<f64>>,
    /// Times that a current or a voltage has throttled the module since it was switched on.
    pub throttled: Option<u64>,
}

impl Sensors {
    /// Finds the sensors below `root` (`/` for the machine this runs on).
    pub fn find(root: &Path) -> Self {
        let tree = Tree::new(root);
        Sensors {
            rails: with_total(rails(&tree)),
            zones: zones(&tree),
            clocks: clocks(&tree),
            throttling: throttling(&tree),
        }
    }

    /// Names what the values of a reading belong to.
    pub fn names(&self) -> SensorNames {
        let names = |sensors: &[Sensor]| sensors.iter().map(|s| s.name.clone()).collect();
        SensorNames {
            rails: self.rails.iter().map(|r| r.sensor.name.clone()).collect(),
            total: self.rails.iter().filter(|r| r.in_total).map(|r| r.sensor.name.clone()).collect(),
            zones: names(&self.zones),
            clocks: names(&self.clocks),
        }
    }

    /// Reads all of them. Takes about a millisecond for each power rail on a Jetson, whose monitors sit on a slow bus.
    pub fn read(&self) -> Sample {
        let values = |sensors: &[Sensor]| sensors.iter().map(Sensor::read).collect();
        let rails: Vec<Option<f64>> = self.rails.iter().map(|r| r.sensor.read()).collect();
        let parts: Vec<_> =
            self.rails.iter().zip(&rails).filter(|(r, _)| r.in_total).map(|(_, w)| *w).collect();
        let total = if parts.is_empty() { None } else { parts.into_iter().sum() };
        let throttled: Vec<f64> = self.throttling.iter().filter_map(Sensor::read).collect();
        Sample {
            rails,
            total,
            zones: values(&self.zones),
            clocks: values(&self.clocks),
            throttled: (!throttled.is_empty()).then(|| throttled.iter().sum::<f64>() as u64),
        }
    }
}

impl Sensor {
    /// A sensor whose files are all there, with values that are divided by `unit`.
    fn new(tree: &Tree, name: String, files: &[String], unit: f64) -> Option<Self> {
        let files = files.iter().map(|file| tree.real(Path::new(file))).collect::<Option<_>>()?;
        Some(Sensor { name, files, unit })
    }

    fn read(&self) -> Option<f64> {
        let number = |file| std::fs::read_to_string(file).ok()?.trim().parse::<f64>().ok();
        self.files.iter().map(number).product::<Option<f64>>().map(|v| v / self.unit)
    }
}

/// The rails of every `ina…` monitor. Channels without a label, or labelled `NC`, are not connected.
fn rails(tree: &Tree) -> Vec<Sensor> {
    let mut rails = Vec::new();
    for device in tree.list("/sys/class/hwmon") {
        let file = |name: String| format!("/sys/class/hwmon/{device}/{name}");
        let label = |name: String| tree.text(&file(name)).filter(|l| !l.is_empty() && l != "NC");
        let chip = tree.text(&file("name".into())).filter(|c| c.starts_with("ina"));
        let Some(chip) = chip else { continue };
        let power = file("power1_input".into());
        if tree.exists(&power) {
            // One channel, and a chip that multiplies by itself. Thor's is on the input of the whole module.
            let unlabelled = if chip == "ina238" { "VIN".into() } else { chip };
            let name = label("label".into()).unwrap_or(unlabelled);
            rails.extend(Sensor::new(tree, name, &[power], 1e6));
            continue;
        }
        for channel in 1..=3 {
            let Some(name) = label(format!("in{channel}_label")) else { continue };
            let files = [format!("in{channel}_input"), format!("curr{channel}_input")].map(file);
            rails.extend(Sensor::new(tree, name, &files, 1e6));
        }
    }
    rails
}

/// A rail at the module's input is the total. AGX Orin has none: there, three rails come from the carrier board, and
/// the memory's is fed by one of them.
fn with_total(rails: Vec<Sensor>) -> Vec<Rail> {
    const INPUT: [&str; 4] = ["VIN", "VDD_IN", "POM_5V_IN", "SYS_VIN_HV"];
    const FED_BY_OTHERS: &str = "VDDQ_VDD2_1V8AO";
    let input = rails.iter().position(|r| INPUT.contains(&r.name.as_str()));
    let in_total = |i, rail: &Sensor| input.map_or(rail.name != FED_BY_OTHERS, |input| i == input);
    rails.into_iter().enumerate().map(|(i, sensor)| Rail { in_total: in_total(i, &sensor), sensor }).collect()
}

fn zones(tree: &Tree) -> Vec<Sensor> {
    let zones = tree.list("/sys/class/thermal").into_iter().filter(|z| z.starts_with("thermal_zone"));
    let zone = |zone: String| {
        let dir = format!("/sys/class/thermal/{zone}");
        let name = tree.text(&format!("{dir}/type")).unwrap_or(zone);
        let name = name.trim_end_matches("-thermal").to_owned();
        Sensor::new(tree, name, &[format!("{dir}/temp")], 1e3)
    };
    zones.filter_map(zone).collect()
}

fn clocks(tree: &Tree) -> Vec<Sensor> {
    let mut clocks = Vec::new();
    for policy in tree.list("/sys/devices/system/cpu/cpufreq") {
        let file = format!("/sys/devices/system/cpu/cpufreq/{policy}/scaling_cur_freq");
        clocks.extend(Sensor::new(tree, format!("CPU {policy}"), &[file], 1e-3));
    }
    for device in tree.list("/sys/class/devfreq") {
        let dir = format!("/sys/class/devfreq/{device}");
        if let Some(name) = super::facts::power::drives(tree, &dir, &device) {
            clocks.extend(Sensor::new(tree, name, &[format!("{dir}/cur_freq")], 1.0));
        }
    }
    clocks
}

/// The counters of over-current and under-voltage events.
fn throttling(tree: &Tree) -> Vec<Sensor> {
    let mut counters = Vec::new();
    for device in tree.list("/sys/class/hwmon") {
        for file in tree.list(&format!("/sys/class/hwmon/{device}")) {
            if file.starts_with("oc") && file.ends_with("_event_cnt") {
                let path = format!("/sys/class/hwmon/{device}/{file}");
                counters.extend(Sensor::new(tree, file, &[path], 1.0));
            }
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn channel(device: u32, channel: u32, label: &str, mv: u32, ma: u32) -> Vec<(String, String)> {
        let file = |name: String| format!("/sys/class/hwmon/hwmon{device}/{name}");
        vec![
            (file("name".into()), "ina3221\n".into()),
            (file(format!("in{channel}_label")), format!("{label}\n")),
            (file(format!("in{channel}_input")), format!("{mv}\n")),
            (file(format!("curr{channel}_input")), format!("{ma}\n")),
        ]
    }

    fn sensors(files: &[(String, String)]) -> (tempfile::TempDir, Sensors) {
        let files: Vec<_> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
        let dir = tree(&files);
        let sensors = Sensors::find(dir.path());
        (dir, sensors)
    }

    #[test]
    fn the_input_rail_is_the_total() {
        let files = [
            channel(3, 1, "VDD_IN", 5000, 2000),
            channel(3, 2, "VDD_CPU_GPU_CV", 5000, 800),
            channel(3, 3, "VDD_SOC", 5000, 300),
        ]
        .concat();
        let (_dir, sensors) = sensors(&files);
        assert_eq!(sensors.names().total, ["VDD_IN"]);
        let sample = sensors.read();
        assert_eq!(sample.rails, [Some(10.0), Some(4.0), Some(1.5)]);
        assert_eq!(sample.total, Some(10.0));
    }

    #[test]
    fn without_an_input_rail_those_from_the_carrier_board_add_up() {
        let files = [
            channel(1, 1, "VDD_GPU_SOC", 12_000, 500),
            channel(1, 2, "VDD_CPU_CV", 12_000, 250),
            channel(1, 3, "VIN_SYS_5V0", 5000, 1000),
            channel(2, 1, "NC", 0, 0),
            channel(2, 2, "VDDQ_VDD2_1V8AO", 1800, 500),
        ]
        .concat();
        let (_dir, sensors) = sensors(&files);
        assert_eq!(sensors.names().rails.len(), 4);
        assert_eq!(sensors.names().total, ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]);
        assert_eq!(sensors.read().total, Some(14.0));
    }

    #[test]
    fn a_chip_that_reports_watts_and_one_that_cannot_be_read() {
        let mut files = channel(4, 1, "VDD_GPU", 800, 1000);
        files.push(("/sys/class/hwmon/hwmon5/name".into(), "ina238\n".into()));
        files.push(("/sys/class/hwmon/hwmon5/power1_input".into(), "42500000\n".into()));
        let (dir, sensors) = sensors(&files);
        assert_eq!(sensors.names().total, ["VIN"]);
        assert_eq!(sensors.read().total, Some(42.5));
        fs::write(dir.path().join("sys/class/hwmon/hwmon5/power1_input"), "").unwrap();
        let sample = sensors.read();
        assert_eq!((sample.total, sample.rails[0]), (None, Some(0.8)));
    }

    #[test]
    fn zones_clocks_and_throttling_are_in_plain_units() {
        let dir = tree(&[
            ("/sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("/sys/class/thermal/thermal_zone0/temp", "48500\n"),
            ("/sys/class/thermal/cooling_device0/type", "pwm-fan\n"),
            ("/sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "1984000\n"),
            ("/sys/class/devfreq/17000000.gpu/cur_freq", "918000000\n"),
            ("/sys/class/hwmon/hwmon0/oc1_event_cnt", "2\n"),
            ("/sys/class/hwmon/hwmon0/oc3_event_cnt", "5\n"),
        ]);
        let sensors = Sensors::find(dir.path());
        let names = sensors.names();
        assert_eq!((names.zones, names.clocks.len()), (vec!["cpu".to_owned()], 2));
        let sample = sensors.read();
        assert_eq!(sample.zones, [Some(48.5)]);
        assert_eq!(sample.clocks, [Some(1.984e9), Some(918e6)]);
        assert_eq!((sample.throttled, sample.total), (Some(7), None));
    }
}
