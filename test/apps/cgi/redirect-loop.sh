#!/bin/sh
# A local redirect to itself, for ever.
printf 'Location: %s\n\n' "$SCRIPT_NAME"
