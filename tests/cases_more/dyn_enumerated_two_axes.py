# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='dyn_enumerated_two_axes', verdict='WARN', culprit_op=None,
 source_url='https://github.com/apple/coremltools/issues/2730',
 expect='several enumerated axes', enumerated=[(1, 3, 32, 32), (1, 3, 64, 64)])
def build(): torch.manual_seed(0); return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()).eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 3, 32, 32),)
