# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_dilated_grouped_conv1d', verdict='FAIL', culprit_op='conv',
 source_url='https://github.com/apple/coremltools/issues/2574',
 expect='crashes the runtime')
def build(): torch.manual_seed(0); return nn.Conv1d(8, 8, 3, dilation=2, groups=8).eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 8, 32),)
