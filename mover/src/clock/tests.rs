use super::World;

#[test]
fn the_system_world_moves_forward_and_differs() {
    let world = World::system();
    let before = world.clock.monotonic();
    assert!(world.clock.monotonic() >= before);
    assert!(world.clock.now().as_second() > 1_700_000_000);
    assert_ne!(world.random::<16>(), world.random::<16>());
}
