#!/usr/bin/env bash
# Fails if the checkout is not what was committed, and says what to do about it: unchanged.sh ADVICE
git add --intent-to-add .  # files that are new count, too
git diff --exit-code || { echo "::error::What is committed is not what the notebooks say. To mend it: $1"; exit 1; }
