# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_large_pool', verdict='WARN', culprit_op='avg_pool',
 source_url='https://github.com/hollance/neural-engine/issues/1',
 expect='')
def build(): return nn.AvgPool2d(15, stride=1).eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 3, 32, 32),)
