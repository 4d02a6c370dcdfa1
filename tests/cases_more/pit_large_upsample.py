# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_large_upsample', verdict='WARN', culprit_op='upsample_nearest_neighbor',
 source_url='https://github.com/hollance/neural-engine/issues/2',
 expect='')
def build(): return nn.Upsample(scale_factor=4, mode='nearest').eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 3, 8, 8),)
