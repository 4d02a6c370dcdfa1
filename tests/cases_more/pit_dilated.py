# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_dilated', verdict='WARN', culprit_op='conv',
 source_url='https://github.com/hollance/neural-engine/blob/master/docs/unsupported-layers.md',
 expect='')
def build(): torch.manual_seed(0); return nn.Conv2d(3, 4, 3, dilation=2).eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 3, 16, 16),)
