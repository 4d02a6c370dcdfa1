#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Take out of a virtual environment what only builds, type checkers and other people's tests need.
#
#   slim.sh ENVIRONMENT
#
# torch looks for torch_shm_manager when it is imported, and imports torch/testing; both stay. The last line proves that it still loads.
set -euo pipefail

cd "$1"/lib/python3*/site-packages
rm -rf torch/include torch/share torch/test caffe2 functorch/_src/tests coremltools/test joblib/test
find torch/bin -type f ! -name torch_shm_manager -delete
find . -depth -type d -name tests -exec rm -rf {} +
find . -type f \( -name '*.pyi' -o -name '*.h' -o -name '*.hpp' -o -name '*.pxd' -o -name '*.a' \) -delete
"$1"/bin/python -c 'import coremltools, onnxruntime, scipy.optimize, sklearn.cluster, torch'
