//! Topics of a recording: their names, and the ROS 2 types that they carry.

/// A topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    /// The robot's state, when it was seen.
    State,
    /// The action that the control loop took.
    Action,
    /// Seconds from the capture of the observation behind an action to its reading.
    Age,
    /// The degree to which an action can be relied on: 0 OK, 1 STALE, 2 HOLD, 3 EMPTY.
    Status,
    /// A chunk as it was planned, from the capture of its observation on.
    Chunk,
    /// A chunk that was not published, and why.
    Rejected,
}

const HEADER: &str = "std_msgs/Header header\n";
const HEADER_TYPES: &str = "MSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n";
const TIME: &str = "MSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n";

/// Puts a type and the types in it into one text, as MCAP wants it.
fn definition(message: &str, others: &[&str]) -> String {
    let line = format!("{}\n", "=".repeat(80));
    std::iter::once(&message).chain(others).copied().collect::<Vec<_>>().join(&line)
}

impl Topic {
    pub(crate) const ALL: [Topic; 6] =
        [Topic::State, Topic::Action, Topic::Age, Topic::Status, Topic::Chunk, Topic::Rejected];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Topic::State => "/joint_states",
            Topic::Action => "/pi0_edge/action",
            Topic::Age => "/pi0_edge/age",
            Topic::Status => "/pi0_edge/status",
            Topic::Chunk => "/pi0_edge/chunk",
            Topic::Rejected => "/pi0_edge/rejected",
        }
    }

    /// Returns the type's name and its definition.
    pub(crate) fn schema(self) -> (&'static str, String) {
        match self {
            Topic::State | Topic::Action => {
                let fields = "string[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n";
                (
                    "sensor_msgs/msg/JointState",
                    definition(&format!("{HEADER}{fields}"), &[HEADER_TYPES, TIME]),
                )
            }
            Topic::Age => ("std_msgs/msg/Float64", "float64 data\n".into()),
            Topic::Status => ("std_msgs/msg/UInt8", "uint8 data\n".into()),
            Topic::Rejected => ("std_msgs/msg/String", "string data\n".into()),
            Topic::Chunk => {
                let fields = "string[] joint_names\ntrajectory_msgs/JointTrajectoryPoint[] points\n";
                let point = "MSG: trajectory_msgs/JointTrajectoryPoint\nfloat64[] positions\nfloat64[] velocities\n\
                    float64[] accelerations\nfloat64[] effort\nbuiltin_interfaces/Duration time_from_start\n";
                let duration = "MSG: builtin_interfaces/Duration\nint32 sec\nuint32 nanosec\n";
                let types = [HEADER_TYPES, TIME, point, duration];
                ("trajectory_msgs/msg/JointTrajectory", definition(&format!("{HEADER}{fields}"), &types))
            }
        }
    }
}

/// Returns the type of a camera's topic, and its definition.
pub(crate) fn image_schema() -> (&'static str, String) {
    let fields = format!("{HEADER}string format\nuint8[] data\n");
    ("sensor_msgs/msg/CompressedImage", definition(&fields, &[HEADER_TYPES, TIME]))
}

/// Returns the topic of a camera: its name, with every sign that ROS does not take in one as `_`.
pub(crate) fn image_topic(camera: &str) -> String {
    let name = camera.rsplit('.').next().unwrap_or(camera);
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("/camera/{name}/compressed")
}
