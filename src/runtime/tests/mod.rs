//! The runtime over simulated time and over real threads, with inference that can be told to go wrong.

mod episodes;
mod fake;
mod faults;
mod lockstep;
mod rt_safe;
mod rtc;
mod systemd;
mod threads;
