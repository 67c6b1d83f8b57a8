#!/bin/sh
# Answers at once and leaves a child in the background that holds standard
# output and standard error open. TEST_DIR/background gets the child's pid.
sleep 300 &
echo $! >"$TEST_DIR/background.part"
mv "$TEST_DIR/background.part" "$TEST_DIR/background"
printf 'Content-Type: text/plain\n\nbody\n'
