//! ALOHA's joints as the released PI0 policies know them: openpi's `adapt_to_pi`.
//!
//! Two arms of six joints and a gripper each. Two joints of an arm turn the other way. A gripper's state is a share of
//! its opening in metres, and becomes a share of the way between two angles of its motor; its action is such a share,
//! and becomes one between two other angles. Computed in f64, as openpi does, and rounded once.
//!
//! Source: `aloha_policy.py` in openpi, which has the constants from ALOHA's and Interbotix' code.

/// Entries of ALOHA's state and of its action.
pub(crate) const DIM: usize = 14;
const ARM: usize = DIM / 2;
const GRIPPER: usize = 6;
const REVERSED: [usize; 2] = [1, 2];

/// Opening of a closed and an open gripper, in metres.
const OPENING: [f64; 2] = [0.01844, 0.05800];
/// Length of the arm and radius of the horn that drive a gripper, in metres.
const LINKAGE: [f64; 2] = [0.036, 0.022];
/// Angles, in radians, between which the policy's grippers go from 0 to 1.
const POLICY: [f64; 2] = [0.5476, 1.6296];
/// Angles, in radians, between which ALOHA's gripper commands go from 0 to 1.
const COMMAND: [f64; 2] = [-0.6213, 1.4910];

/// Converts a state of the robot into one of the policy.
pub(crate) fn state_to_policy(state: &mut [f32]) {
    convert(state, |share| {
        let opening = share * (OPENING[1] - OPENING[0]) + OPENING[0];
        let [arm, horn] = LINKAGE;
        let sine = (horn * horn + opening * opening - arm * arm) / (2.0 * horn * opening);
        (sine.clamp(-1.0, 1.0).asin() - POLICY[0]) / (POLICY[1] - POLICY[0])
    });
}

/// Converts an action of the policy into one of the robot.
pub(crate) fn action_to_robot(action: &mut [f32]) {
    convert(action, |angle| (angle + POLICY[0] - COMMAND[0]) / (COMMAND[1] - COMMAND[0]));
}

/// Converts an action of the robot into one of the policy.
pub(crate) fn action_to_policy(action: &mut [f32]) {
    convert(action, |share| share * (COMMAND[1] - COMMAND[0]) + COMMAND[0] - POLICY[0]);
}

/// Converts the scale of each entry of the policy's actions into that of the robot's.
pub(crate) fn scales_to_robot(mut scales: Vec<f32>) -> Vec<f32> {
    let mut zero = vec![0.0; scales.len()];
    action_to_robot(&mut zero);
    action_to_robot(&mut scales);
    scales.iter().zip(zero).map(|(scale, zero)| (scale - zero).abs()).collect()
}

fn convert(joints: &mut [f32], gripper: impl Fn(f64) -> f64) {
    for arm in joints.chunks_exact_mut(ARM) {
        for joint in REVERSED {
            arm[joint] = -arm[joint];
        }
        arm[GRIPPER] = gripper(f64::from(arm[GRIPPER])) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> [f32; DIM] {
        std::array::from_fn(|i| 0.1 * (i as f32 + 1.0))
    }

    #[test]
    fn two_joints_of_each_arm_turn_the_other_way() {
        for convert in [state_to_policy, action_to_robot, action_to_policy] {
            let mut joints = ramp();
            convert(&mut joints);
            for i in (0..DIM).filter(|i| i % ARM != GRIPPER) {
                let joint = ramp()[i];
                assert_eq!(joints[i], if [1, 2, 8, 9].contains(&i) { -joint } else { joint }, "{i}");
            }
        }
    }

    #[test]
    fn grippers_are_those_of_openpi() {
        // Values of openpi's own functions in f64.
        for (share, angle) in
            [(0.0, -1.079_865_5), (0.5, -0.140_055_92), (1.0, 0.945_652_8), (-1.0, -0.132_018_2)]
        {
            let mut joints = [share; DIM];
            state_to_policy(&mut joints);
            assert!((joints[6] - angle).abs() < 1e-6 && joints[6] == joints[13], "{share}: {}", joints[6]);
        }
        let mut joints = [0.25; DIM];
        action_to_robot(&mut joints);
        assert!((joints[6] - 0.671_732_2).abs() < 1e-6, "{}", joints[6]);
    }

    #[test]
    fn a_scale_is_the_distance_of_two_actions() {
        let scales = scales_to_robot(ramp().into());
        for i in 0..DIM {
            let (mut low, mut high) = ([0.3; DIM], ramp().map(|joint| joint + 0.3));
            action_to_robot(&mut low);
            action_to_robot(&mut high);
            assert!((scales[i] - (high[i] - low[i]).abs()).abs() < 1e-6, "{i}: {}", scales[i]);
        }
    }

    #[test]
    fn an_action_comes_back() {
        let mut joints = ramp();
        action_to_robot(&mut joints);
        action_to_policy(&mut joints);
        assert!(joints.iter().zip(ramp()).all(|(back, joint)| (back - joint).abs() < 1e-6), "{joints:?}");
    }
}
