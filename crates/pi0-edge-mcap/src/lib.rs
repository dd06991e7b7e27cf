//! Recordings of a running policy as MCAP with ROS 2 messages, which Foxglove, Rerun and PlotJuggler open.
//!
//! | topic | type | at |
//! |---|---|---|
//! | `/joint_states` | `sensor_msgs/JointState`: the state, in robot units | its capture |
//! | `/camera/NAME/compressed` | `sensor_msgs/CompressedImage`: JPEG | its capture |
//! | `/pi0_edge/chunk` | `trajectory_msgs/JointTrajectory`: a chunk; its stamp is the capture, row 0's time | its publication |
//! | `/pi0_edge/rejected` | `std_msgs/String`: a chunk that was not published, and why | its beginning |
//! | `/pi0_edge/action` | `sensor_msgs/JointState`: what the control loop took | every tick |
//! | `/pi0_edge/age` | `std_msgs/Float64`: seconds from capture to tick | every tick |
//! | `/pi0_edge/status` | `std_msgs/UInt8`: 0 OK, 1 STALE, 2 HOLD, 3 EMPTY | every tick |
//!
//! [`Live`] records a runtime while it runs; [`Recording`] writes a flight record down, that of a runtime or of a file.
//!
//! Crates that were weighed: `foxglove` brings 23 others and a server, `rerun` 285. Without its compressors `mcap` brings 9.

#![deny(unsafe_code)]

mod cdr;
mod flight;
mod live;
mod recording;
mod topics;

pub use flight::Flight;
pub use live::Live;
pub use recording::{Clock, Counts, Names, Recording};
